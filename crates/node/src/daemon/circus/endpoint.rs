//! The endpoints of Circus, as the plan in force says.
//!
//! Everything is bounded: clients, the time of a handshake, the size of a message, the topics
//! of a subscriber, the events that wait for it, the time in which it takes one.

use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::plan::Plan;
use tokio::time::sleep;

use super::clients::{answer_client, serve_subscriber};
use super::events::Publisher;
use super::sockets::{Opened, Served};
use super::{Circus, ini};

/// So often it is looked whether the sockets are still there, and what the plan says.
pub const LOOK: Duration = Duration::from_secs(2);

/// Serves the endpoints of the plan in force, and shows its watchers in `circus.ini`, for ever.
pub async fn run(circus: Circus) {
    let node = circus.node.clone();
    let mut plans = node.parts.plans.subscribe();
    let mut publisher = Publisher::new(&node).await;
    let mut endpoints = Endpoints::default();
    let mut shown = ini::Shown::default();
    loop {
        // A daemon that goes on with an earlier plan has not announced it.
        if let Ok(plan) = node.shown_plan() {
            publisher.planned(&plan);
            endpoints.follow(&circus, &publisher, &plan).await;
            shown.follow(&node, &plan);
        }
        // An event is passed on at once, and nothing else is done for it.
        let mut look = std::pin::pin!(sleep(LOOK));
        loop {
            tokio::select! {
                changed = plans.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = publisher.relay() => {}
                () = look.as_mut() => break,
            }
        }
    }
}

/// The endpoint of commands and that of events.
#[derive(Default)]
pub struct Endpoints {
    commands: Opened,
    events: Opened,
}

impl Endpoints {
    /// Serves what this plan says. Trouble is recorded once, and shown as long as it lasts.
    pub async fn follow(&mut self, circus: &Circus, publisher: &Publisher, plan: &Plan) {
        let settings = &plan.circus;
        let served = |endpoint| Served::new(endpoint, settings);
        let commands = settings.endpoint.clone().map(served);
        let is_taken = settings.endpoint.is_some() && settings.endpoint == settings.pubsub;
        let events = settings.pubsub.clone().filter(|_| !is_taken).map(served);
        // They may have changed places.
        self.commands.close_other(&commands).await;
        self.events.close_other(&events).await;
        let serving = circus.clone();
        let feed = publisher.feed();
        let troubles = [
            self.commands.open(move |stream, access| {
                let serving = serving.clone();
                answer_client(stream, move |text| {
                    let (serving, access) = (serving.clone(), access.clone());
                    async move { serving.answer(text, access).await }
                })
            }),
            self.events.open(move |stream, _| serve_subscriber(stream, feed.subscribe())),
        ];
        for problem in troubles.into_iter().flatten() {
            circus.node.parts.events.record(Fact::Problem { problem });
        }
        let trouble = [&self.commands.trouble, &self.events.trouble].into_iter().flatten();
        let mut notes: Vec<String> = trouble
            .map(|trouble| format!("{}: {}", trouble.what, trouble.because.join(", ")))
            .collect();
        if is_taken {
            notes.push("events of Circus: [circus] pubsub_endpoint is endpoint too".into());
        }
        if let Ok(mut known) = circus.node.circus_notes.lock() {
            *known = notes;
        }
    }
}
