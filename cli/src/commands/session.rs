//! `malai web01.company`, `malai shell`, `malai -t …`, `malai --detach …`, `malai sessions`.

use malai_core::api::{AttachRequest, AttachedSession, Client, SessionRequest};
use malai_core::model::wire::{AttachMode, CommandEnd, SessionId};

use super::{Context, Outcome};
use crate::args::{SessionOptions, SessionsArgs, ShellArgs};
use crate::error::Failure;
use crate::output::DONE;
use crate::signals::{Signals, number};
use crate::terminal::{self, Place};
use crate::view;

/// Opens a shell, or a program under a terminal. The words begin with the address.
pub(crate) async fn open(context: &Context, words: &[String], options: &SessionOptions) -> Outcome {
    let client = context.client().await?;
    open_by(context, &client, words, options).await
}

/// As [`open`], with a client that is there already; it is closed.
pub(crate) async fn open_by(
    context: &Context,
    client: &Client,
    words: &[String],
    options: &SessionOptions,
) -> Outcome {
    let request = SessionRequest { words: words.to_vec(), ..SessionRequest::default() };
    open_request(context, client, request, options).await
}

/// As [`open_by`], for words that are not only typed ones.
pub(crate) async fn open_request(
    context: &Context,
    client: &Client,
    request: SessionRequest,
    options: &SessionOptions,
) -> Outcome {
    let request = SessionRequest { env: context.env.locale.clone(), window: terminal::window(), ..request };
    if options.detach {
        let started = start_detached(context, client, request).await;
        client.close().await;
        return started;
    }
    // A terminal is what it is for; who wants one anyway says so.
    if !options.tty && !terminal::is_terminal() {
        return Err(Failure::usage(
            "open a shell: stdin is no terminal",
            "name a program (`malai web01.company sh -s < script`), or force a terminal with -t",
        ));
    }
    let place = Place { mode: AttachMode::Control, escape: options.escape.unwrap_or_default() };
    attend(context, client, place, client.open_session(request)).await
}

async fn start_detached(context: &Context, client: &Client, request: SessionRequest) -> Outcome {
    let (machine, session) = client.start_session(request).await?;
    if context.global.json {
        context.output.json(&serde_json::json!({ "machine": machine.shown(), "session": session }));
    } else {
        context.output.line(session.as_str());
        let machine = machine.shown();
        context
            .output
            .note(&format!("[malai: it runs; see it with `malai shell {machine} --attach {session}`]"));
    }
    Ok(DONE)
}

/// `malai shell`.
pub(crate) async fn shell(context: &Context, args: ShellArgs) -> Outcome {
    let ShellArgs { address, attach, watch, detach, escape } = args;
    let mode = if watch.is_some() { AttachMode::Watch } else { AttachMode::Control };
    let Some(which) = watch.or(attach) else {
        let address = address.ok_or_else(no_address)?;
        // `malai shell` says that a terminal is wanted; without one it is forced by `-t`.
        return open(context, &[address], &SessionOptions { tty: false, detach, escape }).await;
    };
    let (address, session) = sort_out(address, which)?;
    let client = context.client().await?;
    let request = AttachRequest { address, session, mode, window: terminal::window() };
    let place = Place { mode, escape: escape.unwrap_or_default() };
    attend(context, &client, place, client.attach_session(request)).await
}

/// Tells the address from the id: the option takes the word behind it, which may be meant as the former.
fn sort_out(address: Option<String>, which: Option<String>) -> Result<(String, Option<SessionId>), Failure> {
    let no_id = |error: malai_core::model::wire::NotASessionId| {
        Failure::usage(format!("find a session: {error}"), "`malai sessions <machine>` lists yours")
    };
    match (address, which) {
        (Some(address), None) => Ok((address, None)),
        (Some(address), Some(id)) => match (id.parse(), address.parse()) {
            (Ok(id), _) => Ok((address, Some(id))),
            // The other way round.
            (Err(_), Ok(session)) if id.contains('.') => Ok((id, Some(session))),
            (Err(error), _) => Err(no_id(error)),
        },
        (None, Some(word)) if word.parse::<SessionId>().is_err() || word.contains('.') => Ok((word, None)),
        (None, _) => Err(no_address()),
    }
}

fn no_address() -> Failure {
    Failure::usage("find the machine: none is named", "such as `malai shell web01.company --attach`")
}

async fn attend(
    context: &Context,
    client: &Client,
    place: Place,
    attaching: impl Future<Output = Result<AttachedSession, malai_core::Error>>,
) -> Outcome {
    let mut signals = Signals::listen().map_err(|error| Failure::local("listen for signals", &error))?;
    let attached = tokio::select! {
        attached = attaching => attached.map_err(Failure::from),
        // Nothing is shown yet: give up as any program would.
        signal = signals.next() => {
            client.close().await;
            return Ok(128 + number(signal));
        }
    };
    let outcome = match attached {
        Ok(attached) => terminal::attend(context, client, signals, attached, place).await,
        Err(failure) => Err(failure),
    };
    client.close().await;
    outcome
}

/// `malai sessions`.
pub(crate) async fn sessions(context: &Context, args: SessionsArgs) -> Outcome {
    let client = context.client().await?;
    let done = match args.end {
        None => client.sessions(args.address).await.map(|found| context.show(&found, view::sessions)),
        Some(session) => client.end_session(args.address, session.clone()).await.map(|end| {
            if context.global.json {
                context.output.json(&serde_json::json!({ "session": session, "ended": end }));
            } else {
                context.output.line(&match end {
                    CommandEnd::Exited { status } => format!("{session} ended with status {status}"),
                    CommandEnd::Killed { signal } => format!("{session} was ended by signal {signal}"),
                });
            }
            DONE
        }),
    };
    client.close().await;
    Ok(done?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(address: Option<&str>, which: Option<&str>) -> Option<(String, Option<String>)> {
        let found = sort_out(address.map(str::to_owned), which.map(str::to_owned)).ok()?;
        Some((found.0, found.1.map(|id| id.to_string())))
    }

    #[test]
    fn the_address_and_the_id_may_stand_either_way() {
        let both = Some(("web01.company".to_owned(), Some("k3fq7aab".to_owned())));
        assert_eq!(sorted(Some("web01.company"), Some("k3fq7aab")), both);
        assert_eq!(sorted(Some("k3fq7aab"), Some("web01.company")), both);
        let alone = Some(("web01.company".to_owned(), None));
        assert_eq!(sorted(Some("web01.company"), None), alone);
        assert_eq!(sorted(None, Some("web01.company")), alone);
        assert_eq!(sorted(None, Some("web")), Some(("web".to_owned(), None)));
        for (address, which) in [(None, None), (None, Some("k3fq7aab")), (Some("web01.company"), Some("K3"))]
        {
            assert_eq!(sorted(address, which), None);
        }
    }
}
