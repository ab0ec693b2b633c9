//! Sources as text, without what only looks like code.

use std::path::Path;

use crate::run::Outcome;

/// A Rust file.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the workspace, with `/`.
    pub(super) path: String,
    /// The file with comments and the contents of texts blanked out; lines and columns stay.
    pub(super) code: String,
    /// Where its tests begin in `code`: the first `#[cfg(test)]` before a module, or the end.
    pub(super) tests_at: usize,
}

/// A `Cargo.toml`.
#[derive(Debug)]
pub(super) struct Manifest {
    /// Relative to the workspace, with `/`.
    pub(super) path: String,
    /// Names of its dependencies, dev-dependencies left out, with their line.
    pub(super) dependencies: Vec<(String, usize)>,
}

/// The files that the rules are about.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) sources: Vec<Source>,
    pub(super) manifests: Vec<Manifest>,
}

impl Tree {
    /// Reads a workspace.
    pub(super) fn read(root: &Path) -> Outcome<Self> {
        let mut tree = Self::default();
        for folder in ["core", "ffi", "cli", "tests", "xtask"] {
            tree.read_folder(root, &root.join(folder))?;
        }
        Ok(tree)
    }

    /// Makes a tree of made-up files.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.add(path, text);
        }
        tree
    }

    fn read_folder(&mut self, root: &Path, folder: &Path) -> Outcome {
        let say = |source: std::io::Error| format!("reading {}: {source}", folder.display());
        let mut entries =
            std::fs::read_dir(folder).map_err(say)?.collect::<Result<Vec<_>, _>>().map_err(say)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && name != "__pycache__" {
                    self.read_folder(root, &path)?;
                }
            } else if name == "Cargo.toml" || path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).map_err(say)?;
                let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
                self.add(&relative, &text);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, text: &str) {
        if path.ends_with("Cargo.toml") {
            self.manifests.push(Manifest { path: path.to_owned(), dependencies: dependencies(text) });
        } else {
            let code = blank(text);
            let tests_at = tests_at(&code);
            self.sources.push(Source { path: path.to_owned(), code, tests_at });
        }
    }
}

impl Source {
    /// Returns the code before the tests.
    pub(super) fn product(&self) -> &str {
        &self.code[..self.tests_at]
    }

    /// Returns the line, from 1, of a byte of the code.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// Finds a path such as `tokio::spawn` where it is not a part of a longer name.
    pub(super) fn find_path<'a>(code: &'a str, path: &'a str) -> impl Iterator<Item = usize> + 'a {
        code.match_indices(path).map(|(at, _)| at).filter(move |at| {
            let before = code[..*at].chars().next_back();
            let after = code[at + path.len()..].chars().next();
            let outside = |c: Option<char>| c.is_none_or(|c| !is_word(c));
            outside(before) && (path.ends_with("::") || outside(after))
        })
    }
}

pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Reads the names of a manifest's dependencies: lines of `[…dependencies]` tables and `[…dependencies.name]` headings.
fn dependencies(text: &str) -> Vec<(String, usize)> {
    let mut names = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(heading) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let last = heading.rsplit("].").next().unwrap_or(heading);
            let table = |tail: &str| tail == "dependencies" || tail == "build-dependencies";
            inside = table(last) || last.rsplit('.').next().is_some_and(table);
            if let Some((before, name)) = heading.rsplit_once('.')
                && before.rsplit('.').next().is_some_and(table)
            {
                names.push((name.to_owned(), index + 1));
            }
        } else if inside && !line.starts_with('#') {
            let name: String = line.chars().take_while(|c| is_word(*c) || *c == '-').collect();
            if !name.is_empty() && line.contains('=') {
                names.push((name, index + 1));
            }
        }
    }
    names
}

fn tests_at(code: &str) -> usize {
    let marker = "#[cfg(test)]";
    let begins = |at: &usize| {
        let mut rest = code[at + marker.len()..].trim_start();
        // Further attributes may stand between.
        while let Some(attribute) = rest.strip_prefix("#[") {
            rest = attribute.split_once(']').map_or("", |(_, rest)| rest).trim_start();
        }
        rest.starts_with("mod ")
    };
    code.match_indices(marker).map(|(at, _)| at).find(begins).unwrap_or(code.len())
}

/// Blanks out comments and the contents of text and character literals.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let hide = |out: &mut String, from: usize, to: usize| {
        out.extend(chars[from..to].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
    };
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => find(&chars, at, |rest| rest[0] == '\n'),
            '/' if chars.get(at + 1) == Some(&'*') => end_of_block(&chars, at),
            '"' => end_of_text(&chars, at + 1),
            'r' if !(at > 0 && is_word(chars[at - 1]) && chars[at - 1] != 'b') => {
                let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
                if chars.get(at + 1 + hashes) == Some(&'"') {
                    let closes = |rest: &[char]| {
                        rest[0] == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= hashes
                    };
                    (find(&chars, at + 2 + hashes, closes) + 1 + hashes).min(chars.len())
                } else {
                    at
                }
            }
            '\'' if chars.get(at + 1) == Some(&'\\') => {
                (find(&chars, at + 3, |rest| rest[0] == '\'') + 1).min(chars.len())
            }
            '\'' if chars.get(at + 2) == Some(&'\'') => at + 3,
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            hide(&mut out, at, end);
            at = end;
        }
    }
    out
}

fn find(chars: &[char], from: usize, fits: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|at| fits(&chars[*at..])).unwrap_or(chars.len())
}

fn end_of_text(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn end_of_block(chars: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut at = from;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_blank_and_lines_stay() {
        let text = "a // x\n/* y /* z */ */ b \"q\\\"r\" r#\"s\"t\"# 'u' '\\'' &'life c b\"w\" d";
        let blanked = blank(text);
        let words: Vec<&str> = blanked.split_whitespace().collect();
        assert_eq!(words, ["a", "b", "&'life", "c", "b", "d"]);
        assert_eq!(blanked.matches('\n').count(), 1);
    }

    #[test]
    fn dependencies_are_read_in_every_form() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb-c = { version = \"1\", features = [\n  \"d\",\n] }\n\
                    [dev-dependencies]\ne = \"1\"\n[target.'cfg(unix)'.dependencies]\nf = \"1\"\n[dependencies.g]\nversion = \"1\"\n";
        let names: Vec<String> = dependencies(text).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b-c", "f", "g"]);
    }

    #[test]
    fn tests_begin_at_a_test_module_only() {
        assert_eq!(tests_at("#[cfg(test)]\nuse x;\n#[cfg(test)]\nmod t {}"), 20);
        assert_eq!(tests_at("#[cfg(test)]\n#[path = \"x\"]\nmod t {}"), 0);
    }
}
