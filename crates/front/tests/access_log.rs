//! The access log of a front. Each lane writes lines of its own, so their order says nothing: a
//! test finds a line by what is in it.

use serde_json::Value;

use crate::world::{World, until};

impl World {
    /// The parsed lines, once there are at least `count`.
    pub fn access_log(&self, count: usize) -> Vec<Value> {
        let mut lines = Vec::new();
        until("lines in the access log", || {
            let text = std::fs::read_to_string(self.path("log/nginx_access.log"));
            lines = text.unwrap_or_default().lines().map(String::from).collect();
            lines.len() >= count
        });
        lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The first line that has this value, once there is one.
    pub fn logged(&self, key: &str, value: impl Into<Value>) -> Value {
        let (mut found, value) = (None, value.into());
        until(&format!("a line of the access log with {key} {value}"), || {
            found = self.access_log(0).into_iter().find(|line| line[key] == value);
            found.is_some()
        });
        found.unwrap_or_default()
    }
}
