//! Pages that need nothing but themselves: one HTML file with its styles, pictures and script.

pub(in crate::report) mod chart;
pub(in crate::report) mod confusion;
pub(in crate::report) mod layers;
pub(crate) mod pictures;

use super::svg::escaped;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::{Display, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

/// A page under construction.
pub(in crate::report) struct Page {
    title: String,
    body: String,
    /// Seconds after which the page loads itself again, while there is more to come.
    reload: Option<u64>,
}

impl Page {
    /// An empty page.
    pub fn new(title: &str, reload: Option<u64>) -> Self {
        Self {
            title: title.to_owned(),
            body: String::new(),
            reload,
        }
    }

    /// Adds HTML.
    pub fn add(&mut self, html: impl Display) {
        let _ = write!(self.body, "{html}");
    }

    /// Adds a section, unless it is empty.
    pub fn section(&mut self, heading: &str, html: impl Display) {
        let html = html.to_string();
        if !html.is_empty() {
            let heading = escaped(heading);
            self.add(format_args!(
                "<section><h2>{heading}</h2>{html}</section>\n"
            ));
        }
    }

    /// Keeps data in the page, for [`remembered`].
    pub fn remember(&mut self, data: &impl Serialize) {
        // Written so, nothing in the data can end the element.
        let json = serde_json::to_string(data).unwrap_or_default();
        let json = json.replace('<', "\\u003c");
        self.add(format_args!("{MEMORY}{json}</script>\n"));
    }

    /// The file. The policy in its head has browsers refuse whatever would go to the network.
    pub fn html(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let milliseconds = now.map_or(0, |d| d.as_millis());
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
             img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <link rel=\"icon\" href=\"data:,\">\n\
             <title>{title}</title>\n<style>\n{style}</style></head>\n\
             <body{reload}>\n{body}\
             <footer>Written by gpucnn {version} <time data-ms=\"{milliseconds}\"></time>. \
             The page needs no network.</footer>\n<script>\n{script}</script></body></html>\n",
            title = escaped(&self.title),
            style = include_str!("style.css"),
            reload = self
                .reload
                .map_or(String::new(), |s| format!(" data-reload=\"{s}\"")),
            body = self.body,
            version = env!("CARGO_PKG_VERSION"),
            script = include_str!("script.js"),
        )
    }
}

const MEMORY: &str = "<script type=\"application/json\" id=\"memory\">";

/// What a page was given to [remember](Page::remember), if it is still legible.
pub(in crate::report) fn remembered<T: DeserializeOwned>(page: &str) -> Option<T> {
    let (_, rest) = page.split_once(MEMORY)?;
    serde_json::from_str(rest.split("</script>").next()?).ok()
}

/// A row of numbers with what they are.
pub(in crate::report) fn tiles(tiles: &[(String, String)]) -> String {
    let tile = |(value, what): &(String, String)| {
        format!(
            "<div><b>{}</b><span>{}</span></div>",
            escaped(value),
            escaped(what)
        )
    };
    let tiles: String = tiles.iter().map(tile).collect();
    format!("<div class=\"tiles\">{tiles}</div>")
}

/// A table; the columns whose heading begins with `#` hold numbers. Cells are HTML.
pub(in crate::report) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let kind = |i: usize| match headings[i].starts_with('#') {
        true => " class=\"number\"",
        false => "",
    };
    let mut out = String::from("<div class=\"scroll\"><table><tr>");
    for (i, heading) in headings.iter().enumerate() {
        let text = escaped(heading.trim_start_matches('#'));
        let _ = write!(out, "<th{}>{text}</th>", kind(i));
    }
    out.push_str("</tr>");
    for row in rows {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{cell}</td>", kind(i));
        }
        out.push_str("</tr>");
    }
    out + "</table></div>"
}
