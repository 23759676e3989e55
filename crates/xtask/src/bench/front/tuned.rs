//! nginx as somebody sets it up who wants it fast.

use super::Backend;
use crate::bench::nginx::Server;

/// For both kinds of server.
const COMMON: &str = "\
sendfile on; tcp_nopush on; tcp_nodelay on;
keepalive_timeout 60s; keepalive_requests 1000000000;
open_file_cache max=1000 inactive=20s; open_file_cache_valid 30s;
proxy_http_version 1.1;
proxy_set_header Connection \"\";
proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;
proxy_max_temp_file_size 0;
";

/// What the embedded front tells workers, clients and its log.
const SAME_WORK: &str = "\
access_log alike.log alike buffer=32k flush=1s;
proxy_set_header Host $http_host;
proxy_set_header X-Request-ID $request_id;
proxy_set_header X-Real-IP $remote_addr;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-Host $host;
proxy_set_header X-Forwarded-Path $request_uri;
add_header X-Request-ID $request_id always;
";

/// The embedded front's access log.
const LOG_FORMAT: &str = "\
log_format alike escape=json '{ \"@timestamp\": \"$time_iso8601\", \"from\": \"$remote_addr\", '
'\"host\": \"$host\", \"method\": \"$request_method\", \"uri\": \"$request_uri\", '
'\"duration\": $request_time, \"status\": $status, \"request_length\": $request_length, '
'\"reply_length\": $bytes_sent, \"plugin\": \"bench\", \"request_id\": \"$request_id\" }';
";

/// With the same headers and the same log as the embedded front.
pub fn alike(backend: &Backend<'_>) -> Server {
    server(backend, LOG_FORMAT, SAME_WORK)
}

/// With nginx's own headers, and the log format `combined`.
pub fn plain(backend: &Backend<'_>) -> Server {
    server(backend, "", "")
}

fn server(backend: &Backend<'_>, format: &str, headers: &str) -> Server {
    let sockets = backend.sockets.iter();
    let peers: String = sockets.map(|s| format!("server unix:{};\n", s.display())).collect();
    let upstream =
        format!("upstream uNUMBER {{\n{peers}keepalive 512; keepalive_requests 1000000000;\n}}\n");
    let files = backend.files.display();
    Server {
        before: format.to_string() + &upstream,
        body: format!(
            "{COMMON}{headers}location / {{ proxy_pass http://uNUMBER; }}\n\
             location /static/ {{ alias {files}/; }}\n"
        ),
    }
}
