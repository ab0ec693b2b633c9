//! Warnings of boundaries that do not hold: who may run any program on a machine is not stopped by a narrower rule
//! for one word or for the shell.

use std::collections::{BTreeMap, HashMap};

use super::groups::Sets;
use crate::config::cluster::{ArgsRule, ClusterConfig, PrincipalList, PrincipalRef};
use crate::config::document::{Findings, Span};
use crate::id::Id52;
use crate::name::{CommandName, MachineName};

/// Where the narrow rules stand in the file.
#[derive(Debug, Default)]
pub(crate) struct RuleSpans {
    pub(crate) allow_shell: BTreeMap<MachineName, Span>,
    pub(crate) commands: BTreeMap<(MachineName, CommandName), Span>,
}

pub(crate) fn warn(findings: &mut Findings<'_>, config: &ClusterConfig, spans: &RuleSpans) {
    let mut lists: Vec<&PrincipalList> = Vec::new();
    for machine in config.machines.values() {
        lists.extend(&machine.allow_from);
        lists.extend(&machine.allow_shell);
        lists.extend(machine.commands.values().filter_map(|rule| rule.allow_from.as_ref()));
    }
    let Some(sets) = Sets::new(config, &lists) else {
        findings.warning(
            "too-large-to-check",
            &(0..0),
            "the config is too large to look for boundaries that do not hold".to_owned(),
            None,
        );
        return;
    };
    let names: HashMap<Id52, &MachineName> =
        config.machines.iter().map(|(name, machine)| (machine.id52, name)).collect();
    let who = |count: usize, first: &[Id52]| {
        let mut shown: Vec<String> = first
            .iter()
            .map(|id| names.get(id).map_or_else(|| format!("{}…", id.short()), |name| name.to_string()))
            .collect();
        if count > shown.len() {
            shown.push(format!("{} more", count - shown.len()));
        }
        shown.join(", ")
    };
    let mut differences = Differences { sets: &sets, known: HashMap::new() };
    let hint = "narrow the machine's allow_from, or give these callers commands only";
    for (name, machine) in &config.machines {
        let Some(any_program) = machine.allow_from.as_ref().filter(|list| !list.0.is_empty()) else {
            continue;
        };
        if let (Some(shell), Some(span)) = (&machine.allow_shell, spans.allow_shell.get(name)) {
            let (count, first) = differences.beyond(any_program, shell);
            if count > 0 {
                let message = format!(
                    "allow_shell does not keep out {}: allow_from lets them run any program on {name}, `bash` too",
                    who(count, &first)
                );
                findings.warning("boundary", span, message, Some(hint.to_owned()));
            }
        }
        for (command, rule) in &machine.commands {
            let Some(span) = spans.commands.get(&(name.clone(), command.clone())) else { continue };
            if let Some(list) = &rule.allow_from {
                let (count, first) = differences.beyond(any_program, list);
                if count > 0 {
                    let message = format!(
                        "the rule for {command:?} does not keep out {}: allow_from lets them run any program on \
                         {name}, `/usr/bin/sudo` and `bash` too",
                        who(count, &first)
                    );
                    findings.warning("boundary", span, message, Some(hint.to_owned()));
                    continue;
                }
            }
            // A rule for a plain program that limits its arguments is gone round by the program's path.
            if rule.command.is_none() && rule.username.is_none() && rule.args != ArgsRule::Any {
                let message = format!(
                    "the args of {command:?} do not bind those whom {name}'s allow_from lets run any program: they \
                     can type its path"
                );
                findings.warning("boundary", span, message, Some(hint.to_owned()));
            }
        }
    }
}

/// The wide list and the narrow one.
type Pair<'c> = (&'c [PrincipalRef], &'c [PrincipalRef]);

/// Most machines share a few lists, so the difference of two lists is computed once.
struct Differences<'s, 'c> {
    sets: &'s Sets<'c>,
    known: HashMap<Pair<'c>, (usize, Vec<Id52>)>,
}

impl<'c> Differences<'_, 'c> {
    fn beyond(&mut self, wide: &'c PrincipalList, narrow: &'c PrincipalList) -> (usize, Vec<Id52>) {
        let sets = self.sets;
        self.known
            .entry((&wide.0, &narrow.0))
            .or_insert_with(|| sets.beyond(&sets.list(wide), &sets.list(narrow)))
            .clone()
    }
}
