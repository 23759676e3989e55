//! Where a plugin answers, for people.

use super::PluginStatus;

impl PluginStatus {
    /// Where it answers, as URLs of a front with this address (`http://HOST:PORT`).
    pub fn urls(&self, address: &str) -> Vec<String> {
        let (scheme, authority) = address.split_once("://").unwrap_or(("http", address));
        let port = authority.rfind(':').map_or("", |at| &authority[at..]);
        let paths = self.paths.iter().map(|path| format!("{address}{path}"));
        paths.chain(self.hosts.iter().map(|host| format!("{scheme}://{host}{port}/"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PluginState;

    #[test]
    fn hosts_have_the_scheme_and_the_port_of_the_front() {
        let text = |text: &str| text.to_string();
        let plugin = PluginStatus {
            name: text("p"),
            version: text("1-1"),
            dir: text("/p"),
            state: PluginState::Active,
            paths: vec![text("/p")],
            hosts: vec![text("example.org"), text("*.example.org")],
        };
        let urls = plugin.urls("https://127.0.0.1:8443");
        let hosts = ["https://example.org:8443/", "https://*.example.org:8443/"];
        assert_eq!(urls[0], "https://127.0.0.1:8443/p");
        assert_eq!(urls[1..], hosts);
    }
}
