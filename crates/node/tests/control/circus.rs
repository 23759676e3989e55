//! The commands of Circus of the played node: it repeats what it is told.

use mfserv_node::control::client;
use mfserv_node::control::{CircusApi, Pending};
use mfserv_node::operations::Who;
use serde_json::{Map, Value, json};

use crate::{Daemon, PATIENCE, Played, get, post};

impl CircusApi for Played {
    fn circus(&self, message: Vec<u8>, who: Who) -> Pending<'_, Option<Map<String, Value>>> {
        let message: Value = serde_json::from_slice(&message).unwrap_or_default();
        let is_answered = message["msg_type"] != "cast";
        let answer = json!({"heard": message, "by": who.command, "pid": who.pid});
        Box::pin(async move { answer.as_object().cloned().filter(|_| is_answered) })
    }
}

#[tokio::test]
async fn a_message_of_circus_is_passed_on_with_who_sends_it() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let message = json!({"command": "list", "id": "7"});
    let sent = message.clone();
    let asked = tokio::task::spawn_blocking(move || client::circus(&socket, &sent, PATIENCE));
    let answer = asked.await.unwrap().unwrap();
    assert_eq!((&answer["heard"], &answer["by"]), (&message, &json!("circusctl")));
    assert_eq!(answer["pid"], std::process::id());
    let cast = post(
        "/v1/circus",
        "Content-Type: application/json\r\n",
        r#"{"command": "incr", "msg_type": "cast"}"#,
    );
    assert_eq!(daemon.exchange(&cast).await.json(), json!({}));
    assert_eq!(daemon.exchange(&get("/v1/circus", "")).await.status, 405);
}
