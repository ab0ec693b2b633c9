//! `malai ping web01.company`.

use std::time::Duration;

use malai_core::Error;
use malai_core::api::{Client, PingView};
use malai_core::model::code::ErrorKind;
use malai_core::model::text::escape_control;
use serde_json::json;

use super::{Context, Outcome};
use crate::args::PingArgs;
use crate::error::Failure;
use crate::output::{DONE, FAILED};
use crate::signals::{Signals, number};

/// What was answered so far.
#[derive(Default)]
struct Tally {
    sent: u64,
    rtts: Vec<u64>,
}

/// Pings a machine a few times.
pub(crate) async fn ping(context: &Context, args: PingArgs) -> Outcome {
    let client = context.client().await?;
    let outcome = pings(context, &client, &args).await;
    client.close().await;
    outcome
}

async fn pings(context: &Context, client: &Client, args: &PingArgs) -> Outcome {
    let mut signals = Signals::listen().map_err(|error| Failure::local("listen for signals", &error))?;
    let mut tally = Tally::default();
    let interrupted = loop {
        let answer = tokio::select! {
            answer = client.ping(args.address.clone(), context.global.connect_timeout) => answer,
            signal = signals.next() => break Some(signal),
        };
        tally.sent += 1;
        match answer {
            Ok(view) => {
                tally.rtts.push(view.rtt_us);
                show(context, args, tally.sent, &view);
            }
            // What no further attempt changes.
            Err(error) if !may_pass(&error) => return Err(error.into()),
            Err(error) => show_failure(context, args, tally.sent, &error),
        }
        if tally.sent == args.count {
            break None;
        }
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            signal = signals.next() => break Some(signal),
        }
    };
    summarise(context, &tally);
    Ok(match interrupted {
        Some(signal) if args.count > 0 => 128 + number(signal),
        _ if tally.rtts.len() as u64 == tally.sent => DONE,
        _ => FAILED,
    })
}

fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Busy | ErrorKind::Denied)
}

fn show(context: &Context, args: &PingArgs, number: u64, view: &PingView) {
    if context.global.json {
        let mut value = serde_json::to_value(view).unwrap_or_default();
        value["event"] = "pong".into();
        value["number"] = number.into();
        context.output.json_line(value);
        return;
    }
    let mut line = format!("{}: {number}: {}", escape_control(&args.address), millis(view.rtt_us));
    if view.local {
        line.push_str(", this device");
    } else {
        let way = if view.relayed { "relayed by" } else { "direct" };
        line.push_str(&format!(", {way} {}", escape_control(&view.address)));
    }
    if number == 1 {
        line.push_str(&format!(", connected in {}", millis(view.connect_us)));
        line.push_str(&format!(", malai {}", escape_control(&view.version)));
    }
    context.output.line(&line);
}

fn show_failure(context: &Context, args: &PingArgs, number: u64, error: &Error) {
    let told = error.to_wire();
    if context.global.json {
        context.output.json_line(json!({ "event": "failed", "number": number, "error": told }));
    } else {
        context.output.line(&format!(
            "{}: {number}: failed to {}",
            escape_control(&args.address),
            escape_control(&told.message)
        ));
    }
}

fn summarise(context: &Context, tally: &Tally) {
    let answered = tally.rtts.len() as u64;
    let least = tally.rtts.iter().min();
    let most = tally.rtts.iter().max();
    let mean = tally.rtts.iter().sum::<u64>().checked_div(answered);
    if context.global.json {
        context.output.json_line(json!({
            "event": "summary", "sent": tally.sent, "answered": answered,
            "rtt_min_us": least, "rtt_mean_us": mean, "rtt_max_us": most,
        }));
        return;
    }
    let mut line = format!("{answered} of {} answered", tally.sent);
    if let (Some(least), Some(mean), Some(most)) = (least, mean, most) {
        line.push_str(&format!(
            "; round trip at least {}, on average {}, at most {}",
            millis(*least),
            millis(mean),
            millis(*most)
        ));
    }
    context.output.line(&line);
}

fn millis(us: u64) -> String {
    let ms = Duration::from_micros(us).as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}
