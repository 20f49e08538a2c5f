//! What a path ends in, and what content that promises.

/// What a file is, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentClass {
    /// Style sheets.
    Style,
    /// Scripts, and what belongs to them.
    Script,
    /// Pictures.
    Image,
    /// Fonts.
    Font,
    /// Films.
    Video,
    /// Sound.
    Audio,
    /// JSON and source maps.
    Json,
    /// XML.
    Xml,
    /// Plain text.
    Text,
    /// Pages.
    Page,
    /// PDF.
    Pdf,
    /// WebAssembly.
    Wasm,
    /// Archives and other downloads.
    Archive,
}

/// Ends of names by class.
const CLASSES: [(ContentClass, &[&str]); 13] = [
    (ContentClass::Style, &["css"]),
    (ContentClass::Script, &["js", "mjs"]),
    (
        ContentClass::Image,
        &["avif", "bmp", "gif", "ico", "jpeg", "jpg", "jxl", "png", "svg", "tif", "tiff", "webp"],
    ),
    (ContentClass::Font, &["eot", "otf", "ttf", "woff", "woff2"]),
    (ContentClass::Video, &["avi", "m4v", "mov", "mp4", "mpeg", "ogv", "ts", "webm"]),
    (ContentClass::Audio, &["aac", "flac", "m4a", "mp3", "ogg", "opus", "wav"]),
    (ContentClass::Json, &["json", "map", "webmanifest"]),
    (ContentClass::Xml, &["rss", "xml"]),
    (ContentClass::Text, &["txt"]),
    (ContentClass::Page, &["htm", "html"]),
    (ContentClass::Pdf, &["pdf"]),
    (ContentClass::Wasm, &["wasm"]),
    (ContentClass::Archive, &["7z", "bz2", "gz", "jar", "rar", "tar", "tgz", "xz", "zip", "zst"]),
];

impl ContentClass {
    /// What the end of a name stands for, in lower case and without the dot; `None` = nothing known.
    pub fn of_extension(extension: &str) -> Option<Self> {
        CLASSES.iter().find(|(_, ends)| ends.contains(&extension)).map(|(class, _)| *class)
    }

    /// Every end of a name that is known, for whoever wrote another one.
    pub(super) fn known() -> String {
        let mut ends: Vec<&str> = CLASSES.iter().flat_map(|(_, ends)| ends.iter().copied()).collect();
        ends.sort_unstable();
        ends.join(", ")
    }
}
