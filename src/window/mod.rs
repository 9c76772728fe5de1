//! The stopped window: one per site, with an intent on disk before the first stop, evidence on the
//! way, and a start in every ending that this process survives; `recover` is for the others.

pub mod before;
pub mod evidence;
pub mod frozen;
pub mod guard;
mod health;
pub mod intent;
mod nodes;
pub mod observe;
pub mod phases;
pub mod recover;
mod running;
pub mod site_lock;
pub mod sqlite;
pub mod start;
pub mod status;
mod timings;
pub mod visitor;

/// An error and what lies below it, for a person.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        text.push_str(": ");
        text.push_str(&source.to_string());
        below = source.source();
    }
    text
}
