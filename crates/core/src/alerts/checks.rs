//! Whether values of an alert can be what they are to be.

use super::Refusal;
use crate::http_url;

/// The longest command, bytes.
const COMMAND_MAX: usize = 4096;

pub(super) fn check_command(command: Option<&str>) -> Result<(), Refusal> {
    match command.is_some_and(|command| command.len() > COMMAND_MAX) {
        true => {
            let why = format!("it has more than {COMMAND_MAX} bytes");
            Err((why, "put it into a file, and name that".into()))
        }
        false => Ok(()),
    }
}

pub(super) fn check_webhook(url: Option<&str>) -> Result<(), Refusal> {
    let Some((url, why)) = url.and_then(|url| Some((url, http_url::check(url).err()?))) else {
        return Ok(());
    };
    let why = format!("{url:?} is no address of a receiver: {why}");
    Err((why, "write http://HOST/PATH or https://HOST/PATH".into()))
}

pub(super) fn check_ca(file: Option<&str>, webhook: Option<&str>) -> Result<(), Refusal> {
    let Some(file) = file else { return Ok(()) };
    if !file.starts_with('/') {
        let why = format!("{file:?} is no absolute path");
        return Err((why, "name a PEM file, from / on".into()));
    }
    if !webhook.is_some_and(|url| url.starts_with("https://")) {
        let why = "there is no https:// webhook whose certificate is checked";
        return Err((why.into(), "remove it, or write webhook=https://…".into()));
    }
    Ok(())
}
