//! How nginx is configured in the stacks of others.

use std::path::PathBuf;

use super::kit::Kit;
use crate::bench::nginx::{Server, Setup};

/// Connections of clients, and to workers, are not closed while they are measured.
const CLIENTS: &str = "keepalive_timeout 600s; keepalive_requests 1000000000;\n";

/// An ordinary configuration that keeps its connections to the workers.
pub fn keep_alive(kit: &Kit, sockets: &[PathBuf]) -> (Setup, Server) {
    let kept = "keepalive 64; keepalive_requests 1000000000; keepalive_timeout 600s;\n";
    let body = "location / {\nproxy_pass http://uNUMBER;\nproxy_http_version 1.1;\n\
                proxy_set_header Connection \"\";\nproxy_set_header Host $http_host;\n\
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n}\n";
    let server = Server { before: upstream(sockets, kept), body: CLIENTS.to_string() + body };
    (kit.nginx.clone(), server)
}

/// An ordinary configuration; the workers close each connection.
pub fn closing(kit: &Kit, sockets: &[PathBuf]) -> (Setup, Server) {
    let body = "location / {\nproxy_pass http://uNUMBER;\nproxy_set_header Host $http_host;\n\
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n}\n";
    let server = Server { before: upstream(sockets, ""), body: CLIENTS.to_string() + body };
    (kit.nginx.clone(), server)
}

/// The protocol of uWSGI.
pub fn uwsgi(kit: &Kit, sockets: &[PathBuf]) -> (Setup, Server) {
    let parameters = [
        ("QUERY_STRING", "$query_string"),
        ("REQUEST_METHOD", "$request_method"),
        ("CONTENT_TYPE", "$content_type"),
        ("CONTENT_LENGTH", "$content_length"),
        ("REQUEST_URI", "$request_uri"),
        ("PATH_INFO", "$document_uri"),
        ("SERVER_PROTOCOL", "$server_protocol"),
        ("REQUEST_SCHEME", "$scheme"),
        ("REMOTE_ADDR", "$remote_addr"),
        ("REMOTE_PORT", "$remote_port"),
        ("SERVER_PORT", "$server_port"),
        ("SERVER_NAME", "$server_name"),
    ];
    let parameters = parameters.map(|(name, value)| format!("uwsgi_param {name} {value};\n"));
    let body = format!("{CLIENTS}location / {{\nuwsgi_pass uNUMBER;\n{}}}\n", parameters.concat());
    (kit.nginx.clone(), Server { before: upstream(sockets, ""), body })
}

/// What MFSERV has configured: a new connection for each request, the worker with the fewest
/// ones in shared memory, a log of JSON, a request id, X-Forwarded-* of which two come from Lua,
/// routes that are regular expressions, answers that are not buffered.
pub fn imitated(kit: &Kit, sockets: &[PathBuf]) -> (Setup, Server) {
    let before = upstream(sockets, "") + IMITATED_BEFORE;
    let from = match &kit.lua {
        Some(_) => IMITATED_LUA,
        None => "set $forwarded_host $host;\nset $forwarded_port $server_port;\n",
    };
    let body = format!("{CLIENTS}{from}{IMITATED_BODY}");
    (kit.lua.clone().unwrap_or_else(|| kit.nginx.clone()), Server { before, body })
}

fn upstream(sockets: &[PathBuf], more: &str) -> String {
    let servers = sockets.iter();
    let servers = servers.map(|socket| format!("server unix:{} max_fails=0;\n", socket.display()));
    let servers: String = servers.collect();
    format!("upstream uNUMBER {{\nzone uNUMBER 1000k;\nleast_conn;\n{servers}{more}}}\n")
}

const IMITATED_BEFORE: &str = r#"
log_format main escape=json '{ "@timestamp": "$time_iso8601", "from": "$remote_addr", '
'"method": "$request_method", "uri": "$request_uri", "duration": $request_time, '
'"status": $status, "request_length": $request_length, "reply_length": $bytes_sent, '
'"plugin": "$plugin", "request_id": "$request_id" }';
map $http_x_forwarded_proto $forwarded_proto { default $http_x_forwarded_proto; '' $scheme; }
map $http_x_forwarded_path $forwarded_path { default $http_x_forwarded_path; '' $request_uri; }
map $http_upgrade $upstream_connection { default upgrade; '' close; }
"#;

/// The host without its port, and the port.
const IMITATED_LUA: &str = r#"
set_by_lua_block $forwarded_host {
  local given = ngx.var.http_x_forwarded_host
  if given then return given end
  local host = ngx.var.http_host or ngx.var.host or ""
  return string.match(host, "^(.*):[0-9]+$") or host
}
set_by_lua_block $forwarded_port {
  local given = ngx.var.http_x_forwarded_port
  if given then return given end
  return string.match(ngx.var.http_host or "", ":([0-9]+)$") or ""
}
"#;

const IMITATED_BODY: &str = r#"
set $plugin "bench";
access_log imitated.log main;
add_header X-Request-ID $request_id;

location ~ ^(?:/(.*))?$ {
  proxy_http_version 1.1;
  proxy_buffering off;
  proxy_next_upstream off;
  proxy_set_header Host $http_host;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $upstream_connection;
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $forwarded_proto;
  proxy_set_header X-Forwarded-Host $forwarded_host;
  proxy_set_header X-Forwarded-Port $forwarded_port;
  proxy_set_header X-Forwarded-Path $forwarded_path;
  proxy_set_header X-Request-Id $request_id;
  proxy_pass http://uNUMBER;
}
"#;
