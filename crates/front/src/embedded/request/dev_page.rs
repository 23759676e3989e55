//! What a developer sees whose newest code does not start.
//!
//! The old code, if any, goes on serving. A browser that opens a page of the plugin gets why
//! the new code does not start, once, with a button for the old code's page; everything else
//! (scripts, forms, other programs) goes on being answered by the app. Answers of the app
//! are never altered but for the field `X-Mfserv-Dev: broken`: a page may be compressed,
//! signed, cached or streamed.
//!
//! Only a client on this machine sees any of this, and none that a proxy asks for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use mfserv_core::names::check_plugin_name;
use mfserv_core::route::ServerSettings;
use mfserv_core::wire::front::Breakage;

use crate::embedded::clients::access_log::Visit;
use crate::embedded::clients::answer::Answer;
use crate::embedded::io::buffer::Buffer;
use mfserv_h1::RequestHead;

/// The cookie that says that the developer has seen it: its value is the time of the breakage.
const SEEN: &str = "mfserv_dev_seen";

/// The plugins under development whose newest code does not start, as the daemon last said.
#[derive(Debug, Default)]
pub struct Broken {
    /// So that a node without any pays nothing.
    any: AtomicBool,
    plugins: Mutex<BTreeMap<String, Arc<Breakage>>>,
}

impl Broken {
    /// These, and no others.
    pub fn set(&self, broken: BTreeMap<String, Breakage>) {
        let any = !broken.is_empty();
        if let Ok(mut plugins) = self.plugins.lock() {
            *plugins = broken.into_iter().map(|(name, one)| (name, Arc::new(one))).collect();
            self.any.store(any, Ordering::Relaxed);
        }
    }

    /// Why the newest code of a plugin does not start, if it does not.
    pub fn of(&self, plugin: &str) -> Option<Arc<Breakage>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.plugins.lock().ok()?.get(plugin).cloned()
    }
}

/// The page is to be given instead of the app's: a browser opens it, and the developer has
/// not asked for the old code.
pub fn stands_before(head: &RequestHead, breakage: &Breakage) -> bool {
    opens_page(head) && !has_seen(head, breakage)
}

/// A browser asks for a document to show by itself.
fn opens_page(head: &RequestHead) -> bool {
    if head.method() != b"GET" {
        return false;
    }
    match field(head, "sec-fetch-dest") {
        Some(dest) => dest == b"document",
        // Browsers of before 2023 do not say it.
        None => field(head, "accept").is_some_and(|accept| accept.starts_with(b"text/html")),
    }
}

fn has_seen(head: &RequestHead, breakage: &Breakage) -> bool {
    let seen = format!("{SEEN}={}", breakage.at_ms);
    let cookies = head.fields.iter().filter(|(_, name, _)| name.eq_ignore_ascii_case(b"cookie"));
    let mut pairs = cookies.flat_map(|(_, _, value)| value.split(|&b| b == b';'));
    pairs.any(|pair| pair.trim_ascii() == seen.as_bytes())
}

fn field<'a>(head: &'a RequestHead, name: &str) -> Option<&'a [u8]> {
    let mut fields = head.fields.iter();
    let found = fields.find(|(_, written, _)| written.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|(_, _, value)| value)
}

/// The front's answer in place of the app's, with a status (500 if the old code serves, else
/// 502 to 504) and its cause: a page for a browser, plain text for other programs.
pub fn put(
    out: &mut Buffer,
    settings: &ServerSettings,
    visit: &mut Visit,
    head: &RequestHead,
    (status, cause, breakage): (u16, &str, &Breakage),
) {
    let plugin = visit.plugin.clone();
    let (content_type, body) = match opens_page(head) {
        true => ("text/html; charset=utf-8", page(&plugin, Some(breakage), status < 502)),
        false => ("text/plain; charset=utf-8", text(breakage)),
    };
    let answer = Answer {
        status,
        content_type,
        length: Some(body.len() as u64),
        fields: &[("Cache-Control", "no-store"), ("X-Mfserv-Cause", cause), FIELD],
    };
    answer.put_head(out, settings, visit);
    if head.method() != b"HEAD" {
        out.push(body.as_bytes());
    }
}

/// What every answer of a plugin carries while its newest code does not start.
const FIELD: (&str, &str) = ("X-Mfserv-Dev", "broken");

/// The same, among the fields of an answer of the app.
pub fn put_field(out: &mut Buffer) {
    out.push_all(&[FIELD.0.as_bytes(), b": ", FIELD.1.as_bytes(), b"\r\n"]);
}

/// What `/__dev/PLUGIN` says: a page for a browser, JSON for scripts.
pub fn state(broken: &Broken, plugin: &str, head: &RequestHead) -> (u16, &'static str, String) {
    if let Err(problem) = check_plugin_name(plugin) {
        return (404, "text/plain; charset=utf-8", format!("{problem}\n"));
    }
    let breakage = broken.of(plugin);
    if opens_page(head) {
        let page = page(plugin, breakage.as_deref(), false);
        return (200, "text/html; charset=utf-8", page);
    }
    let told = serde_json::json!({ "plugin": plugin, "broken": breakage.as_deref() });
    (200, "application/json", format!("{told}\n"))
}

fn text(breakage: &Breakage) -> String {
    format!("{}\n{}\n", breakage.what, breakage.output.trim_end())
}

/// It looks by itself whether something has changed, and is loaded again then.
fn page(plugin: &str, breakage: Option<&Breakage>, old_serves: bool) -> String {
    let name = escaped(plugin);
    let (title, colour, since) = match breakage {
        Some(breakage) => ("the newest code does not start", "#b00020", breakage.at_ms.to_string()),
        None => ("the newest code serves", "#1b7837", "null".into()),
    };
    let mut page = format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>{name}: {title}</title>\n\
         <style>body{{font:16px/1.5 sans-serif;margin:2em auto;max-width:70em;padding:0 1em}}\
         h1{{color:{colour};font-size:1.4em}}pre{{background:#f4f4f4;padding:1em;overflow:auto;\
         font-size:14px}}</style></head>\n<body><h1>{name}: {title}</h1>\n"
    );
    if let Some(breakage) = breakage {
        let (what, output) = (escaped(&breakage.what), escaped(breakage.output.trim_end()));
        let _ = writeln!(page, "<p>{what}</p>\n<pre>{output}</pre>");
        page += "<p>This page goes by itself when the code has been mended.</p>\n";
    }
    if old_serves {
        let _ = writeln!(
            page,
            "<p>The old code goes on serving. <button onclick=\"document.cookie='{SEEN}={since}; \
             path=/; SameSite=Lax';location.reload()\">Show its page</button></p>"
        );
    }
    let _ = writeln!(
        page,
        "<script>setInterval(async()=>{{try{{const r=await fetch('/__dev/{name}');\
         const b=(await r.json()).broken;if((b?b.at_ms:null)!=={since})location.reload()}}\
         catch(e){{}}}},500)</script>\n</body></html>"
    );
    page
}

/// Text between tags and in attributes. (Names of plugins have neither quotes nor backslashes.)
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '&' => safe += "&amp;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c if c.is_control() && !matches!(c, '\n' | '\t') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> RequestHead {
        let mut head = RequestHead::default();
        head.read(format!("GET /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes()).unwrap();
        head
    }

    fn breakage() -> Breakage {
        let output = "<script>alert('x')</script> & \u{1b}[31m".into();
        Breakage { what: "app.a.main does not start".into(), output, at_ms: 7 }
    }

    #[test]
    fn the_page_stands_before_a_page_that_a_browser_opens_until_it_was_seen() {
        for (fields, before) in [
            ("Sec-Fetch-Dest: document\r\n", true),
            ("Sec-Fetch-Dest: document\r\nCookie: a=b; mfserv_dev_seen=6\r\n", true),
            ("Sec-Fetch-Dest: document\r\nCookie: a=b; mfserv_dev_seen=7\r\n", false),
            ("Sec-Fetch-Dest: iframe\r\nAccept: text/html\r\n", false),
            ("Sec-Fetch-Dest: empty\r\nAccept: text/html\r\n", false),
            ("Accept: text/html,application/xhtml+xml;q=0.9\r\n", true),
            ("Accept: */*\r\n", false),
            ("", false),
        ] {
            assert_eq!(stands_before(&head(fields), &breakage()), before, "{fields}");
        }
    }

    #[test]
    fn what_the_code_has_said_is_text_and_nothing_else() {
        let page = page("a", Some(&breakage()), true);
        assert!(
            page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; \u{fffd}[31m")
        );
        assert_eq!(page.matches("<script>").count(), 1, "{page}");
    }
}
