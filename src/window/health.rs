//! Whether a service that was started answers: asked when it runs again, told, and never a reason to
//! take a snapshot for something else.

use std::time::Duration;

use super::chain;
use super::phases::Context;
use crate::base::time::human_duration;
use crate::format::manifest::Evidence;
use crate::host::health::Health;

/// Time that one question has.
const QUESTION: Duration = Duration::from_secs(10);

/// Time between two questions.
const PAUSE: Duration = Duration::from_millis(250);

/// Asks until the answer is good, for at most `within`; what came of it, in words.
fn wait_well(health: &dyn Health, within: Duration, context: &Context) -> Result<String, String> {
    let (clock, url) = (&*context.clock, health.url());
    let began = clock.monotonic();
    loop {
        let left = within.saturating_sub(clock.monotonic().saturating_sub(began));
        let answer = health.ask(QUESTION.min(left.max(PAUSE)));
        let waited = clock.monotonic().saturating_sub(began);
        let why = match answer {
            Ok(code) if (200..300).contains(&code) => {
                return Ok(format!("{url} answered {code} after {}", human_duration(waited)));
            }
            Ok(code) => format!("it answered {code}"),
            Err(error) => chain(&error),
        };
        if waited >= within || context.interrupt.is_set() {
            let waited = human_duration(waited);
            return Err(format!("{url} gave no good answer within {waited}: {why}"));
        }
        clock.sleep(PAUSE.min(within.saturating_sub(waited)));
    }
}

/// Asks, and adds what came of it to the evidence of the starts; what is wrong, if anything.
pub(super) fn look(
    health: &dyn Health,
    within: Duration,
    context: &Context,
    evidence: &mut [Evidence],
) -> Option<String> {
    let asked = wait_well(health, within, context);
    let (told, well) = match &asked {
        Ok(told) => (told, true),
        Err(told) => (told, false),
    };
    for one in evidence.iter_mut().filter(|one| one.check == "service-started") {
        one.detail = format!("{}; {told}", one.detail);
        one.held &= well;
    }
    asked.err()
}
