//! The part of the configuration that comes from the settings of the node.

use mfserv_core::route::UnknownHost;

use super::Writer;
use crate::embedded::mime;
use crate::nginx::text::{Text, literally, quoted, quoted_path};

/// How much longer nginx waits for a body than the front behind it, milliseconds: the front is to
/// answer 408, where nginx would only close the connection.
const BEHIND_MS: u64 = 5_000;

impl Writer<'_> {
    pub(super) fn basics(&self, text: &mut Text) {
        let server = self.server;
        let on = |flag: bool| if flag { "on" } else { "off" };
        text.line("default_type text/plain;");
        text.block("types", |text| {
            for ending in mime::ENDINGS.split_whitespace() {
                text.line(format!("{} {ending};", mime::of(&format!("a.{ending}"))));
            }
        });
        text.line("types_hash_max_size 4096;");
        text.line("variables_hash_max_size 2048;");
        text.line("sendfile on;");
        text.line("tcp_nodelay on;");
        // The front behind nginx sorts them out, as it does without nginx.
        text.line("ignore_invalid_headers off;");
        text.line(format!("server_tokens {};", on(server.server_tokens)));
        text.line(format!("port_in_redirect {};", on(server.port_in_redirect)));
        // As RFC 9110 says: also a time that is later than that of the file.
        text.line("if_modified_since before;");
        let head = server.request_head.bytes.div_ceil(1024).max(1);
        text.line(format!("large_client_header_buffers 8 {head}k;"));
        text.line(format!("client_header_timeout {}ms;", server.header_timeout_ms));
        let body_timeout_ms = server.client_timeout_ms.saturating_add(BEHIND_MS);
        text.line(format!("client_body_timeout {body_timeout_ms}ms;"));
        text.line(format!("send_timeout {}ms;", server.client_timeout_ms));
        text.line(format!("keepalive_timeout {}ms;", server.keepalive_timeout_ms));
        text.line("keepalive_requests 1000000;");
        let most = i64::try_from(server.max_body_bytes).unwrap_or(0);
        text.line(format!("client_max_body_size {most};"));
        for what in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            let dir = self.site.temp_dir.join(what);
            text.line(format!("{what}_temp_path {};", quoted_path(&dir)));
        }
        if let Some(real_ip) = server.real_ip.as_ref().filter(|_| self.site.has_real_ip) {
            for network in &real_ip.proxies {
                text.line(format!("set_real_ip_from {};", quoted(network)));
            }
            text.line(format!("real_ip_header {};", quoted(&real_ip.header)));
            text.line(format!("real_ip_recursive {};", on(real_ip.recursive)));
        }
    }

    pub(super) fn proxying(&self, text: &mut Text) {
        text.block("upstream mfserv_front", |text| {
            let socket = self.site.front_socket.display();
            text.line(format!("server unix:{socket} max_fails=0;"));
            text.line("keepalive 128;");
            text.line("keepalive_requests 1000000;");
        });
        text.line("proxy_http_version 1.1;");
        // The front behind nginx keeps what is to be kept, and decides how long it waits.
        text.line("proxy_buffering off;");
        text.line("proxy_request_buffering off;");
        let answer = self.server.answer_head.bytes.div_ceil(1024).max(4) + 1;
        text.line(format!("proxy_buffer_size {answer}k;"));
        text.line(format!("proxy_buffers 8 {answer}k;"));
        text.line(format!("proxy_busy_buffers_size {}k;", answer * 2));
        text.line("proxy_read_timeout 1d;");
        text.line("proxy_send_timeout 1d;");
        // It also decides what is tried again.
        text.line("proxy_next_upstream off;");
        let goes_on = if self.server.ignore_client_abort { "on" } else { "off" };
        text.line(format!("proxy_ignore_client_abort {goes_on};"));
        // X-Accel-Redirect is obeyed: the front passes it on for apps whose plugin brings along
        // locations, and for no others; and it has connections ended that way.
        text.line(
            "proxy_ignore_headers X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering \
             X-Accel-Charset;",
        );
        for field in ["Expires", "Limit-Rate", "Buffering", "Charset"] {
            text.line(format!("proxy_pass_header X-Accel-{field};"));
        }
        self.proxy_fields(text);
    }

    /// What nginx says to the front. A location with a field of its own does not inherit these.
    pub(super) fn proxy_fields(&self, text: &mut Text) {
        text.line("proxy_set_header Host $mfserv_host;");
        text.line("proxy_set_header Upgrade $mfserv_upgrade;");
        text.line("proxy_set_header Connection $mfserv_connection;");
        text.line("proxy_set_header X-Mfserv-Edge $mfserv_edge;");
        if self.server.add_request_id {
            text.line("proxy_set_header X-Request-Id $mfserv_request_id;");
        }
    }

    pub(super) fn variables(&self, text: &mut Text) {
        // Only a request that names it in both fields asks for an upgrade.
        text.block("map \"$http_connection|$http_upgrade\" $mfserv_upgrade", |text| {
            text.line("default \"\";");
            text.line("\"~*^(.*[, ])?upgrade([, ].*)?\\|.\" $http_upgrade;");
        });
        text.block("map $mfserv_upgrade $mfserv_connection", |text| {
            text.line("default upgrade;");
            text.line("\"\" \"\";");
        });
        text.block("map $http_host $mfserv_host_field", |text| {
            text.line("default $http_host;");
            // A request without a host (HTTP/1.0) is one for the name of the server, localhost; where
            // that matters, for an address that is no machine's.
            let is_any = self.server.unknown_host == UnknownHost::Default;
            text.line(format!("\"\" {};", if is_any { "$host" } else { "0.0.0.0" }));
        });
        // The host of an absolute form is the host, whatever the field says (RFC 9112, 3.2.2).
        text.block("map $request $mfserv_host", |text| {
            text.line("default $mfserv_host_field;");
            text.line("\"~*^[^ ]+ https?://(?<mfserv_authority>[^/? ]+)\" $mfserv_authority;");
        });
        // realip puts another address in the place of that of the client that connected.
        let has_two = self.server.real_ip.is_some() && self.site.has_real_ip;
        let client = if has_two { "realip_remote" } else { "remote" };
        let (key, more) = (&self.site.key, self.edge_words());
        text.block("map $server_port $mfserv_edge", |text| {
            text.line(format!(
                "default \"{key} ${client}_addr ${client}_port $server_addr $server_port{more}\";"
            ));
        });
        text.block("map $http_x_request_id $mfserv_request_id", |text| {
            text.line("default $request_id;");
            if self.server.accept_request_id {
                text.line("\"~^[!-~]{1,128}$\" $http_x_request_id;");
            }
        });
    }

    /// The fields of answers that nginx gives itself, as the front behind it names its own.
    pub(super) fn answer_fields(&self, text: &mut Text) {
        if self.server.add_request_id {
            text.block("map $mfserv_answers $mfserv_own_id", |text| {
                text.line("default \"\";");
                text.line("1 $mfserv_request_id;");
            });
        }
        text.block("map \"$mfserv_answers$status\" $mfserv_cause", |text| {
            text.line("default \"\";");
            for (statuses, cause) in [
                ("400", "bad_request"),
                ("403", "forbidden"),
                ("404", "not_found"),
                ("405", "method"),
                ("408", "slow_body"),
                ("412", "precondition"),
                ("413", "too_large"),
                ("414", "bad_request"),
                ("416", "range"),
                ("421", "unknown_host"),
                // Requests that nginx does not understand.
                ("50[15]", "bad_request"),
                ("50[0-9]", "front"),
            ] {
                text.line(format!("\"~^1{statuses}$\" {cause};"));
            }
        });
        text.block("map \"$mfserv_answers$status\" $mfserv_allow", |text| {
            text.line("default \"\";");
            text.line("1405 \"GET, HEAD\";");
        });
        self.add_fields(text);
    }

    /// A block with a field of its own does not inherit these: they stand beside each fragment too.
    pub(super) fn add_fields(&self, text: &mut Text) {
        if self.server.add_request_id {
            text.line("add_header X-Request-Id $mfserv_own_id always;");
        }
        text.line("add_header X-Mfserv-Cause $mfserv_cause always;");
        text.line("add_header Allow $mfserv_allow always;");
        if self.tls().is_some_and(|tls| tls.strict_transport.is_some()) {
            text.line("add_header Strict-Transport-Security $mfserv_strict_transport always;");
        }
    }

    /// The front behind nginx logs what it answers, and what ends while it has it. nginx logs the
    /// others.
    pub(super) fn logs(&self, text: &mut Text) {
        let socket = literally(&self.site.front_socket.to_string_lossy());
        text.block("map \"$upstream_addr|$upstream_header_time\" $mfserv_answers", |text| {
            text.line("default 1;");
            text.line(format!("{} 0;", quoted(&format!("~unix:{socket}\\|(.*, )?[0-9.]+$"))));
        });
        // The client has broken off, or its body was no body or too large: the front behind nginx
        // had the head by then, and loses its client.
        let ended = "$mfserv_answers|$status|$upstream_addr|$upstream_connect_time";
        text.block(&format!("map \"{ended}\" $mfserv_logs"), |text| {
            text.line("default $mfserv_answers;");
            let of_front = format!("~^1\\|(400|408|413|499)\\|unix:{socket}\\|(.*, )?[0-9.]+$");
            text.line(format!("{} 0;", quoted(&of_front)));
        });
        self.log_lines(text);
    }

    /// The lines of the access log, as the front behind nginx writes them. A key without a value is left
    /// out, so there is a form of the line for each.
    fn log_lines(&self, text: &mut Text) {
        let has_two = self.server.real_ip.is_some() && self.site.has_real_ip;
        let addresses = [("remote_addr", "from"), ("realip_remote_addr", "via")];
        for (address, name) in addresses.iter().take(1 + usize::from(has_two)) {
            // A client of IPv4 on a socket for both is known by its own address.
            text.block(&format!("map ${address} $mfserv_{name}"), |text| {
                text.line(format!("default ${address};"));
                text.line(format!(
                    "\"~*^::ffff:(?<mfserv_v4_{name}>[0-9.]+)$\" $mfserv_v4_{name};"
                ));
            });
        }
        let via = if has_two { "\"via\": \"$mfserv_via\", " } else { "" };
        let forms = [("plain", "1|", ""), ("cause", "~^1\\|.", ", \"cause\": \"$mfserv_cause\"")];
        for (form, which, cause) in forms {
            text.block(
                &format!("map \"$mfserv_logs|$mfserv_cause\" $mfserv_logs_{form}"),
                |text| {
                    text.line("default 0;");
                    text.line(format!("\"{which}\" 1;"));
                },
            );
            text.line(format!(
                "log_format mfserv_{form} escape=json '{{ \"@timestamp\": \"$time_iso8601\", \
                 \"from\": \"$mfserv_from\", {via}\"host\": \"$host\", \
                 \"method\": \"$request_method\", \"uri\": \"$request_uri\", \
                 \"duration\": $request_time, \"status\": $status, \
                 \"request_length\": $request_length, \"reply_length\": $bytes_sent, \
                 \"plugin\": \"$plugin\", \"request_id\": \"$mfserv_request_id\"{cause} }}';"
            ));
        }
        if !self.server.access_log {
            return text.line("access_log off;");
        }
        let log = quoted_path(&self.site.log_dir.join("nginx_access.log"));
        for (form, ..) in forms {
            text.line(format!("access_log {log} mfserv_{form} if=$mfserv_logs_{form};"));
        }
    }
}
