//! `malai run 'web*.company' -- uptime`.

use std::cell::RefCell;
use std::io::Read;
use std::sync::Arc;

use malai_core::Bytes;
use malai_core::api::{AfterFailure, Client, ManyEvent, ManyOrder, ManyRequest, ManyRun};
use malai_core::model::wire::Signal;

use super::{Context, Outcome};
use crate::args::RunArgs;
use crate::error::Failure;
use crate::output::{DONE, FAILED};
use crate::signals::{Signals, number};
use crate::streams::{Target, Writer};
use crate::view::many::{Report, Style};

/// How much of stdin is kept for every machine, in bytes.
const MAX_INPUT: usize = 16 * 1024 * 1024;
/// How long, after Ctrl-C, what is left to be told may take.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(3);

/// Runs a program on many machines.
pub(crate) async fn run(context: &Context, args: RunArgs) -> Outcome {
    let client = Arc::new(context.client().await?);
    let outcome = begin(context, &client, args).await;
    // Failed or not, the targets learn at once that this caller is gone.
    client.close().await;
    outcome
}

async fn begin(context: &Context, client: &Arc<Client>, args: RunArgs) -> Outcome {
    let mut signals = Signals::listen().map_err(|error| Failure::local("listen for signals", &error))?;
    let mut request = ManyRequest::new(args.targets, args.program);
    request.env = context.env.locale.clone();
    request.timeout = args.timeout;
    if let Some(concurrency) = args.concurrency {
        request.concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
    }
    if args.fail_fast {
        request.after_failure = AfterFailure::Stop;
    }
    if args.order {
        request.order = ManyOrder::ByTarget;
    }
    let beginning = async {
        if args.stdin {
            request.input = read_stdin().await?;
        }
        Ok::<_, Failure>(client.run_many(request).await?)
    };
    let mut many = tokio::select! {
        many = beginning => many?,
        // Nothing runs yet: give up as any program would.
        signal = signals.next() => return Ok(128 + number(signal)),
    };
    let style = Style {
        json: context.global.json,
        stdout_colour: context.env.stdout_colour,
        stderr_colour: context.env.colour,
    };
    let report = RefCell::new(Report::new(many.targets(), style));
    let writer = Writer::new().map_err(|error| Failure::local("open stdout", &error))?;
    let stopper = many.stopper();
    let told = follow(&mut many, &report, writer);
    let mut told = std::pin::pin!(told);
    let mut interrupted: Option<Signal> = None;
    loop {
        let last_words = async {
            match interrupted {
                Some(_) => tokio::time::sleep(LAST_WORDS).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            outcome = &mut told => {
                let status = outcome?;
                return Ok(match interrupted {
                    Some(signal) => 128 + number(signal),
                    None => status,
                });
            }
            signal = signals.next() => {
                stopper.stop();
                // A second one, or a terminal that is gone: nobody waits for more.
                if signal == Signal::Hup || interrupted.is_some() {
                    return Ok(128 + number(signal));
                }
                interrupted = Some(signal);
            }
            () = last_words => {
                // Nobody takes the output.
                context.output.note(&report.borrow().summary());
                return Ok(interrupted.map_or(FAILED, |signal| 128 + number(signal)));
            }
        }
    }
}

/// Shows what happens until all is over. Returns the status.
async fn follow(many: &mut ManyRun, report: &RefCell<Report>, mut writer: Writer) -> Outcome {
    while let Some(batch) = many.next_batch().await {
        let blocks = {
            let mut report = report.borrow_mut();
            batch.iter().for_each(|event: &ManyEvent| report.add(event));
            report.take()
        };
        for (target, block) in [(Target::Stdout, blocks.stdout), (Target::Stderr, blocks.stderr)] {
            if !block.is_empty() && !writer.write(target, Bytes::from(block)).await {
                // Stdout takes nothing more: the thread says why.
                many.stop();
                return Ok(writer.finish().await?.unwrap_or(FAILED));
            }
        }
    }
    let (target, summary) = report.borrow_mut().end();
    let target = if target { Target::Stdout } else { Target::Stderr };
    // Whether it was taken shows when the writer ends.
    _ = writer.write(target, Bytes::from(summary)).await;
    let status = if report.borrow().all_ok() { DONE } else { FAILED };
    Ok(writer.finish().await?.unwrap_or(status))
}

/// Reads all of stdin, on a thread: a read of a terminal cannot be interrupted.
async fn read_stdin() -> Result<Bytes, Failure> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut input = Vec::new();
        let limit = u64::try_from(MAX_INPUT).unwrap_or(u64::MAX) + 1;
        let read = std::io::stdin().lock().take(limit).read_to_end(&mut input);
        // Gone: the process is about to end.
        _ = tell.send(read.map(|_| input));
    });
    match told.await {
        Ok(Ok(input)) if input.len() <= MAX_INPUT => Ok(Bytes::from(input)),
        Ok(Ok(_)) => Err(Failure::usage(
            "give stdin to every machine: it is more than 16 MiB",
            "copy a file there first, and let the program read that",
        )),
        Ok(Err(error)) => Err(Failure::local("read stdin", &error)),
        Err(_) => Err(Failure::local("read stdin", &std::io::Error::from(std::io::ErrorKind::UnexpectedEof))),
    }
}
