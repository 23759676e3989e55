//! The page of development: why the newest code of a plugin does not start.
//!
//! The old code, if there is any, goes on serving. A browser that opens a page of the
//! plugin gets this page once, with a button that shows the old code's page; everything
//! else (scripts, forms, other programs) is answered by the app as before. An answer of
//! the app is never altered, except for the additional field `X-Mfserv-Dev: broken`: it
//! may be compressed, signed, cached or streamed.
//!
//! Only clients on this machine see any of this, and none for whom a proxy asks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use mfserv_core::names::check_plugin_name;
use mfserv_core::wire::front::Breakage;
use mfserv_h1::RequestHead;

use super::{Attendant, Extension, Page};
use crate::embedded::clients::answer::Text;
use crate::embedded::clients::fault::Cause;

/// The cookie that says that the developer has seen the page; its value is the time of the
/// breakage.
const SEEN: &str = "mfserv_dev_seen";
/// What every answer of a plugin carries while its newest code does not start.
const FIELD: (&str, &str) = ("X-Mfserv-Dev", "broken");
/// The value of `X-Mfserv-Cause` where the page stands in place of an answer of the app.
const CAUSE: &str = "broken_edit";

/// The plugins under development whose newest code does not start, as the daemon last
/// reported.
#[derive(Debug, Default)]
pub struct DevPage {
    /// Spares the lock on nodes without such a plugin.
    any: AtomicBool,
    plugins: Mutex<BTreeMap<String, Arc<Breakage>>>,
}

impl DevPage {
    fn breakage_of(&self, plugin: &str) -> Option<Arc<Breakage>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.plugins.lock().ok()?.get(plugin).cloned()
    }
}

impl Extension for DevPage {
    fn set_state(&self, broken: &BTreeMap<String, Breakage>) {
        if let Ok(mut plugins) = self.plugins.lock() {
            let known = broken.iter().map(|(name, one)| (name.clone(), Arc::new(one.clone())));
            *plugins = known.collect();
            self.any.store(!broken.is_empty(), Ordering::Relaxed);
        }
    }

    /// `/__dev/PLUGIN`: a page for a browser, JSON for scripts.
    fn endpoint(&self, path: &str, head: &RequestHead) -> Option<Text> {
        let plugin = path.strip_prefix("dev/")?;
        if let Err(problem) = check_plugin_name(plugin) {
            let content_type = "text/plain; charset=utf-8";
            return Some(Text { status: 404, content_type, content: format!("{problem}\n") });
        }
        let breakage = self.breakage_of(plugin);
        let (content_type, content) = match opens_page(head) {
            true => ("text/html; charset=utf-8", page(plugin, breakage.as_deref(), false)),
            false => {
                let state = serde_json::json!({ "plugin": plugin, "broken": breakage.as_deref() });
                ("application/json", format!("{state}\n"))
            }
        };
        Some(Text { status: 200, content_type, content })
    }

    fn attend(&self, plugin: &str) -> Option<Box<dyn Attendant>> {
        let breakage = self.breakage_of(plugin)?;
        Some(Box::new(Broken { plugin: plugin.to_string(), breakage }))
    }
}

/// A plugin whose newest code does not start.
struct Broken {
    plugin: String,
    breakage: Arc<Breakage>,
}

impl Broken {
    /// A page for a browser, plain text for other programs.
    fn answer(&self, head: &RequestHead, status: u16, cause: &'static str, serves: bool) -> Page {
        let breakage = &*self.breakage;
        let (content_type, content) = match opens_page(head) {
            true => ("text/html; charset=utf-8", page(&self.plugin, Some(breakage), serves)),
            false => ("text/plain; charset=utf-8", text(breakage)),
        };
        let fields = vec![("Cache-Control", "no-store"), ("X-Mfserv-Cause", cause)];
        Page { text: Text { status, content_type, content }, fields }
    }
}

impl Attendant for Broken {
    fn field(&self) -> (&'static str, &'static str) {
        FIELD
    }

    fn instead(&self, head: &RequestHead, serves: bool) -> Option<Page> {
        let status = if serves { 500 } else { 503 };
        stands_before(head, &self.breakage).then(|| self.answer(head, status, CAUSE, serves))
    }

    fn instead_of_fault(&self, head: &RequestHead, cause: Cause) -> Option<Page> {
        let is_of_the_app = cause.status() >= 502;
        is_of_the_app.then(|| self.answer(head, cause.status(), cause.as_str(), false))
    }
}

/// True if the page stands before the app's: a browser opens a document, and the developer
/// has not asked for the old code.
fn stands_before(head: &RequestHead, breakage: &Breakage) -> bool {
    opens_page(head) && !has_seen(head, breakage)
}

/// True if a browser asks for a document to be shown in a tab.
fn opens_page(head: &RequestHead) -> bool {
    if head.method() != b"GET" {
        return false;
    }
    match field(head, "sec-fetch-dest") {
        Some(dest) => dest == b"document",
        // Browsers from before 2023 do not send it.
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

fn text(breakage: &Breakage) -> String {
    format!("{}\n{}\n", breakage.what, breakage.output.trim_end())
}

/// The page. Its script asks twice a second whether something has changed, and loads the
/// page again then.
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

/// Text as it may stand between tags and in attributes.
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
        head.read(format!("GET /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes(), 100).unwrap();
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
    fn the_output_of_the_code_is_shown_as_text_and_nothing_else() {
        let page = page("a", Some(&breakage()), true);
        assert!(
            page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; \u{fffd}[31m")
        );
        assert_eq!(page.matches("<script>").count(), 1, "{page}");
    }
}
