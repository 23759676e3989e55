//! What the crate promises: the grammar by tables, the times against a reference of another
//! structure, the clock against what cron(8) documents.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test starts programs and stops at the first thing that is wrong"
)]

mod clock;
mod commands;
mod fields;
mod kit;
mod lines;
mod missed;
mod next;
mod reference;
mod walk;
mod zone;
