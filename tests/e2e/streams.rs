//! Bytes in both directions.

use std::time::{Duration, Instant};

use malai_testkit::{Running, await_until};
use sha2::{Digest, Sha256};

use crate::{SOON, each_way, scaled};

const LONG: Duration = Duration::from_secs(240);

/// A text that tells a lost, doubled or moved block.
fn numbered(lines: u64) -> Vec<u8> {
    (1..=lines).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

#[test]
fn a_gibibyte_of_stdout_arrives_whole() {
    each_way(|cluster| {
        let bytes = scaled(1 << 30);
        // `seq` repeated to the size: every block differs from the next.
        let script = format!("seq 1 999999999 | head -c {bytes}");
        let laptop = cluster.home("laptop");
        let output =
            laptop.command(["web01.company", "sh", "-c", &script]).digest_stdout().deadline(LONG).run().ok();
        assert_eq!(output.stdout_len, bytes);
        let mut expected = Sha256::new();
        let (mut left, mut number) = (bytes, 0u64);
        let mut line = String::new();
        while left > 0 {
            use std::fmt::Write;
            line.clear();
            while line.len() < 1 << 16 {
                number += 1;
                writeln!(line, "{number}").expect("writes to a text");
            }
            let part =
                &line.as_bytes()[..usize::try_from(left).map_or(line.len(), |left| left.min(line.len()))];
            expected.update(part);
            left -= part.len() as u64;
        }
        assert_eq!(output.stdout_sha256, Some(data_encoding::HEXLOWER.encode(&expected.finalize())));
    });
}

#[test]
fn two_hundred_megabytes_of_stdin_arrive_whole() {
    each_way(|cluster| {
        let bytes = numbered(scaled(200_000_000) / 8);
        let expected = sha256(&bytes);
        let command = cluster.home("laptop").command(["web01.company", "sha256sum"]);
        let output = command.feed(move |pipe| pipe.write_all(&bytes)).deadline(LONG).run().ok();
        assert_eq!(output.text().split_whitespace().next(), Some(expected.as_str()));
    });
}

#[test]
fn every_byte_value_passes_both_ways() {
    each_way(|cluster| {
        let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let output = cluster.home("laptop").command(["web01.company", "cat"]).stdin(bytes.clone()).run().ok();
        assert!(output.stdout == bytes, "{} of {} bytes", output.stdout.len(), bytes.len());
    });
}

#[test]
fn lines_come_back_one_by_one_on_a_pipe_held_open_and_its_end_passes_on() {
    each_way(|cluster| {
        let mut running = cluster.home("laptop").command(["web01.company", "cat"]).open_stdin().spawn();
        for number in 0..20 {
            let line = format!("line {number}");
            running.write(format!("{line}\n"));
            running.wait_for_line(SOON, |seen| seen == line);
        }
        running.close_stdin();
        running.wait(SOON).ok();
    });
}

#[test]
fn a_program_that_reads_no_stdin_ends_all_the_same() {
    each_way(|cluster| {
        let laptop = cluster.home("laptop");
        laptop.command(["web01.company", "true"]).stdin(vec![0; 10_000_000]).run().ok();
        let running = laptop.command(["web01.company", "true"]).open_stdin().spawn();
        running.wait(SOON).ok();
    });
}

#[test]
fn output_that_nobody_reads_ends_the_remote_program_as_a_pipe_would() {
    each_way(|cluster| {
        // The reader goes after one line: `yes` must not run on for nobody.
        let laptop = cluster.home("laptop");
        let mut command = laptop.plain_command(["web01.company", "sh", "-c", "echo $$; exec yes"]);
        let mut child = command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("starts malai");
        let mut reader = std::io::BufReader::new(child.stdout.take().expect("has a stdout"));
        let mut pid = String::new();
        std::io::BufRead::read_line(&mut reader, &mut pid).expect("reads a line");
        drop(reader);
        let ended = Instant::now() + SOON;
        while child.try_wait().expect("asks for the state").is_none() {
            assert!(Instant::now() < ended, "malai goes on without a reader: {:?}", child.kill());
            std::thread::yield_now();
        }
        await_until("the end of `yes`", SOON, || crate::commands::is_gone(&pid));
    });
}

#[test]
fn a_hundred_commands_at_once_each_get_their_own_answer() {
    // A hundred handshakes on a busy machine take their time, which is not what is asked here.
    each_way(|cluster| {
        let laptop = cluster.home("laptop");
        let all: Vec<Running> = (0..100)
            .map(|number| {
                let script = format!("read x; echo {number} $x; exit {number}");
                laptop
                    .command(["--connect-timeout", "60s", "web01.company", "sh", "-c", &script])
                    .stdin(format!("in {number}\n"))
                    .spawn()
            })
            .collect();
        for (number, running) in (0..).zip(all) {
            assert_eq!(running.wait(LONG).exits(number).text(), format!("{number} in {number}"));
        }
    });
}

#[test]
fn a_reader_that_pauses_on_many_small_writes_harms_no_other_stream() {
    each_way(|cluster| {
        let laptop = cluster.home("laptop");
        // A write for each line, of the sizes that kill a connection whose reader does not drain it.
        let lines = 30_000;
        let script = format!("i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo $i {:0>100}; done", 0);
        let paused =
            laptop.command(["web01.company", "sh", "-c", &script]).hold_stdout().deadline(LONG).spawn();
        let pause = if scaled(8) == 8 { Duration::from_secs(10) } else { Duration::from_secs(2) };
        let started = Instant::now();
        let mut rounds = 0;
        while started.elapsed() < pause {
            let bytes = 4_000_000;
            let words = [
                "web01.company".to_owned(),
                "head".into(),
                "-c".into(),
                format!("{bytes}"),
                "/dev/zero".into(),
            ];
            let other = laptop.command(words).digest_stdout().run().ok();
            assert_eq!(other.stdout_len, bytes);
            rounds += 1;
        }
        assert!(rounds > 0);
        paused.release_stdout();
        let output = paused.wait(LONG).ok();
        let numbers: Vec<usize> =
            output.text().lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
        assert!(numbers.iter().copied().eq(1..=lines), "{} lines of {lines} in order", numbers.len());
    });
}
