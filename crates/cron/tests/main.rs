//! What the crate promises: the grammar by tables, the times against a reference of another
//! structure, the clock against what cron(8) documents.

mod main {
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
}
