//! Extensions: answers for requests that concern an app, beside or in place of the app's.
//!
//! An extension is one file in this directory and one line in the list below. Nothing
//! else names it, so it is removed by deleting both.

use std::collections::BTreeMap;

use mfserv_core::wire::front::Breakage;
use mfserv_h1::RequestHead;

use crate::embedded::clients::answer::Text;
use crate::embedded::clients::fault::Cause;

/// Declares the modules of all extensions, and makes one of each. (rustfmt does not see
/// modules that a macro declares: it has to be given their files by name.)
macro_rules! extensions {
    ($($module:ident::$extension:ident,)*) => {
        $(mod $module;)*

        /// One of each extension.
        fn all() -> Vec<Box<dyn Extension>> {
            vec![$(Box::new($module::$extension::default())),*]
        }
    };
}

extensions! {
    dev_page::DevPage,
}

/// An answer of an extension, with its fields.
#[derive(Debug, Clone)]
pub struct Page {
    /// The answer.
    pub text: Text,
    /// Its fields besides the type and the length.
    pub fields: Vec<(&'static str, &'static str)>,
}

/// What an extension does. Each function is called in the lane of a request and must not
/// wait.
pub trait Extension: Send + Sync {
    /// The daemon has reported the state of the node: `broken` are the plugins under
    /// development whose newest code does not start.
    fn set_state(&self, broken: &BTreeMap<String, Breakage>);

    /// The answer to a request for an inner endpoint, `/__` and `path`, if it is one of the
    /// extension's.
    fn endpoint(&self, path: &str, head: &RequestHead) -> Option<Text>;

    /// What the extension does with requests to this plugin, if it does anything. Called for
    /// each request to an app: it has to be fast where there is nothing to do.
    fn attend(&self, plugin: &str) -> Option<Box<dyn Attendant>>;
}

/// What an extension does with one request to an app.
pub trait Attendant: Send {
    /// A field for the answer, whoever gives it.
    fn field(&self) -> (&'static str, &'static str);

    /// The answer in place of the app's, which is then not asked. `serves`: the app has a
    /// worker with traffic.
    fn instead(&self, head: &RequestHead, serves: bool) -> Option<Page>;

    /// The answer in place of the page for a fault of the app.
    fn instead_of_fault(&self, head: &RequestHead, cause: Cause) -> Option<Page>;
}

/// All extensions of a front.
pub struct Extensions(Vec<Box<dyn Extension>>);

impl Extensions {
    /// One of each.
    pub fn new() -> Self {
        Self(all())
    }

    /// Passes on the state of the node.
    pub fn set_state(&self, broken: &BTreeMap<String, Breakage>) {
        self.0.iter().for_each(|extension| extension.set_state(broken));
    }

    /// The first extension's answer to a request for an inner endpoint.
    pub fn endpoint(&self, path: &str, head: &RequestHead) -> Option<Text> {
        self.0.iter().find_map(|extension| extension.endpoint(path, head))
    }

    /// The first extension that does something with requests to this plugin.
    pub fn attend(&self, plugin: &str) -> Option<Box<dyn Attendant>> {
        self.0.iter().find_map(|extension| extension.attend(plugin))
    }
}
