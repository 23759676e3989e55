//! The state of the node as one word, as it stands in `var/status`, in `mfserv status`
//! and in the health endpoint of the front.

use serde::{Deserialize, Serialize};

/// The state of the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum NodeState {
    /// The daemon carries out its first plan, and the front does not serve yet.
    Starting,
    /// The front serves.
    Running,
    /// The first plan cannot be carried out, or the front does not start. The daemon tries again.
    Error,
    /// The node was told to stop, and finishes the requests in flight.
    Stopping,
    /// The node was stopped.
    Stopped,
    /// Nothing is known: no daemon has reported a state yet, or another version of mfserv
    /// reports one that this version does not have.
    #[default]
    #[serde(other)]
    Unknown,
}

impl NodeState {
    /// All states.
    pub const ALL: [NodeState; 6] = [
        NodeState::Starting,
        NodeState::Running,
        NodeState::Error,
        NodeState::Stopping,
        NodeState::Stopped,
        NodeState::Unknown,
    ];

    /// The word: `RUNNING` for [`NodeState::Running`].
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Starting => "STARTING",
            NodeState::Running => "RUNNING",
            NodeState::Error => "ERROR",
            NodeState::Stopping => "STOPPING",
            NodeState::Stopped => "STOPPED",
            NodeState::Unknown => "UNKNOWN",
        }
    }

    /// Reads the word, with white space around it. Any other text is [`NodeState::Unknown`].
    pub fn parse(text: &str) -> NodeState {
        let text = text.trim();
        NodeState::ALL.into_iter().find(|state| state.as_str() == text).unwrap_or_default()
    }
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_one_word_on_disk_in_json_and_on_the_terminal() {
        for state in NodeState::ALL {
            let word = state.to_string();
            assert_eq!(NodeState::parse(&format!("{word}\n")), state);
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{word}\""));
            assert_eq!(serde_json::from_str::<NodeState>(&format!("\"{word}\"")).unwrap(), state);
        }
        assert_eq!(NodeState::Running.as_str(), "RUNNING");
    }

    #[test]
    fn a_word_of_another_version_is_an_unknown_state_and_no_error() {
        assert_eq!(serde_json::from_str::<NodeState>("\"PAUSED\"").unwrap(), NodeState::Unknown);
        assert_eq!(NodeState::parse("PAUSED"), NodeState::Unknown);
        assert_eq!(NodeState::parse(""), NodeState::Unknown);
    }
}
