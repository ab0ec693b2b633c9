//! `malai doctor`.

use malai_core::api::{Finding, Severity, doctor};

use super::{Context, Outcome, hidden};
use crate::output::{DONE, FAILED};
use crate::view;

pub(crate) async fn run(context: &Context) -> Outcome {
    let mut found = doctor(context.client_options()?).await;
    for alias in hidden::aliases(context) {
        found.findings.push(Finding {
            severity: Severity::Warning,
            about: "aliases".to_owned(),
            what: hidden::message(&alias),
            cure: Some(hidden::CURE.to_owned()),
            code: None,
        });
    }
    context.show(&found, |found| view::doctor(found, context.env.stdout_colour));
    Ok(if found.worst() == Severity::Problem { FAILED } else { DONE })
}
