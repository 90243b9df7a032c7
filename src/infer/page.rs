//! The page where one drops an image, for `gpucnn serve` and for the web export.

const HTML: &str = include_str!("page.html");
/// What stands for the script in the page.
const SCRIPT: &str = "/* script */";

/// The page with a script in it that calls `start({title, note, classify})`, where
/// `classify(file)` gives `[{class, probability}, …]`.
pub(crate) fn inline(script: &str) -> String {
    HTML.replace(SCRIPT, script)
}
