//! Pages of an app for errors that the front answers in its place.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The statuses that a page may be for.
const STATUSES: std::ops::RangeInclusive<u16> = 400..=599;

/// The page of a static site for paths without a file, as hosts of static sites have it.
const NOT_FOUND: &str = "404.html";

/// What clients of an app are shown where the front answers an error in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorPages {
    /// The directory of the pages; nothing outside of it is sent.
    pub root: PathBuf,
    /// The pages: the first one that is for a status is sent.
    pub pages: Vec<ErrorPage>,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorPage {
    /// The statuses that it is for: from this one…
    pub first: u16,
    /// …to this one.
    pub last: u16,
    /// The file, below the directory of all.
    pub file: String,
}

impl ErrorPage {
    /// Reads `404:/404.html` or `500-599:/oops.html`. An error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((statuses, file)) = text.split_once(':') else {
            return Err(format!("{text:?} names no file"));
        };
        let (first, last) = statuses.split_once('-').unwrap_or((statuses, statuses));
        let status = |text: &str| text.parse().ok().filter(|status| STATUSES.contains(status));
        let (Some(first), Some(last)) = (status(first), status(last)) else {
            return Err(format!("{statuses:?} is no status of an error, which are 400 to 599"));
        };
        if first > last {
            return Err(format!("{statuses:?} ends before it begins"));
        }
        let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        match file.strip_prefix('/') {
            Some(below) if below.split('/').all(is_name) => {
                Ok(Self { first, last, file: below.to_owned() })
            }
            _ => Err(format!("{file:?} is not the path of a file as /404.html")),
        }
    }

    /// The page that a static site has without a word about it, if the file is there.
    pub fn of_convention() -> Self {
        Self { first: 404, last: 404, file: NOT_FOUND.into() }
    }
}

impl ErrorPages {
    /// The files for this status: the first one that is there is its page.
    pub fn files(&self, status: u16) -> impl Iterator<Item = &str> {
        let is_for = move |page: &&ErrorPage| (page.first..=page.last).contains(&status);
        self.pages.iter().filter(is_for).map(|page| page.file.as_str())
    }

    /// Puts a page before the ranges that its status is in, and after pages for this status alone.
    pub fn add(&mut self, page: ErrorPage) {
        let is_range = |other: &ErrorPage| {
            other.first < other.last && (other.first..=other.last).contains(&page.first)
        };
        let at = self.pages.iter().position(is_range).unwrap_or(self.pages.len());
        self.pages.insert(at, page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_for_a_status_are_in_their_order_and_that_of_convention_before_ranges() {
        let written = ["404:/own.html", "500-599:/errors/oops.html", "400-599:/any.html"];
        let pages = written.map(|text| ErrorPage::parse(text).unwrap()).to_vec();
        let mut pages = ErrorPages { root: "/root".into(), pages };
        for (status, files) in [
            (404, &["own.html", "any.html"][..]),
            (502, &["errors/oops.html", "any.html"]),
            (599, &["errors/oops.html", "any.html"]),
            (413, &["any.html"]),
            (301, &[]),
        ] {
            assert_eq!(Vec::from_iter(pages.files(status)), files, "{status}");
        }
        pages.add(ErrorPage::of_convention());
        let of_404 = Vec::from_iter(pages.files(404));
        assert_eq!(of_404, ["own.html", "404.html", "any.html"]);
    }

    #[test]
    fn what_is_no_status_of_an_error_or_no_file_below_the_root_is_refused() {
        for wrong in [
            "404",
            "404:",
            "404:404.html",
            "404:/",
            "200:/a.html",
            "600:/a.html",
            "5xx:/a.html",
            "500-400:/a.html",
            "400-999:/a.html",
            "404:/../a.html",
            "404:/a/../b.html",
            "404:/a//b.html",
            "404:/./a.html",
            "404:https://example.org/",
            ":/a.html",
            "404:/a\0b",
            "-:/a",
        ] {
            assert!(ErrorPage::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
