//! The Content-Type of a file, by its name.

/// All endings with a type of their own, for the configuration of nginx.
pub const ENDINGS: &str = "html htm shtml css xml gif jpeg jpg js mjs atom rss mml jad wml htc avif png svg svgz tif \
    tiff wbmp webp ico jng bmp woff woff2 jar war ear json map hqx doc pdf ps eps ai rtf m3u8 \
    kml kmz xls eot ppt odg odp ods odt pptx xlsx docx wmlc wasm 7z cco jardiff jnlp run pl pm \
    prc pdb rar rpm sea swf sit tcl tk der pem crt xpi xhtml xspf zip bin exe dll deb dmg iso \
    img msi msp msm grib grib2 bufr nc mid midi kar mp3 ogg oga m4a ra 3gpp 3gp ts mp4 mpeg \
    mpg mov webm flv m4v mng asx asf wmv avi webmanifest jsonld epub vtt ics apng heic jxl aac \
    flac opus ogv glb gltf geojson gz tgz zst bz2 xz tar otf ttf wav";

/// True if files of this type become much shorter when they are compressed.
pub fn is_compressible(content_type: &str) -> bool {
    let rest = content_type.split_once('/').map_or("", |(_, rest)| rest);
    content_type.starts_with("text/")
        || rest.ends_with("+xml")
        || rest.ends_with("+json")
        || matches!(
            content_type,
            "application/javascript"
                | "application/json"
                | "application/vnd.apple.mpegurl"
                | "application/vnd.ms-fontobject"
                | "application/wasm"
                | "font/otf"
                | "font/ttf"
                | "image/bmp"
                | "image/x-icon"
                | "image/x-ms-bmp"
        )
}

/// The Content-Type of a file, as in nginx's list; `text/plain` for an unknown ending.
pub fn of(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending.to_ascii_lowercase().as_str() {
        "html" | "htm" | "shtml" => "text/html",
        "css" => "text/css",
        "xml" => "text/xml",
        "gif" => "image/gif",
        "jpeg" | "jpg" => "image/jpeg",
        "js" | "mjs" => "application/javascript",
        "atom" => "application/atom+xml",
        "rss" => "application/rss+xml",
        "mml" => "text/mathml",
        "jad" => "text/vnd.sun.j2me.app-descriptor",
        "wml" => "text/vnd.wap.wml",
        "htc" => "text/x-component",
        "avif" => "image/avif",
        "png" => "image/png",
        "svg" | "svgz" => "image/svg+xml",
        "tif" | "tiff" => "image/tiff",
        "wbmp" => "image/vnd.wap.wbmp",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "jng" => "image/x-jng",
        "bmp" => "image/x-ms-bmp",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "jar" | "war" | "ear" => "application/java-archive",
        "json" | "map" => "application/json",
        "hqx" => "application/mac-binhex40",
        "doc" => "application/msword",
        "pdf" => "application/pdf",
        "ps" | "eps" | "ai" => "application/postscript",
        "rtf" => "application/rtf",
        "m3u8" => "application/vnd.apple.mpegurl",
        "kml" => "application/vnd.google-earth.kml+xml",
        "kmz" => "application/vnd.google-earth.kmz",
        "xls" => "application/vnd.ms-excel",
        "eot" => "application/vnd.ms-fontobject",
        "ppt" => "application/vnd.ms-powerpoint",
        "odg" => "application/vnd.oasis.opendocument.graphics",
        "odp" => "application/vnd.oasis.opendocument.presentation",
        "ods" => "application/vnd.oasis.opendocument.spreadsheet",
        "odt" => "application/vnd.oasis.opendocument.text",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "wmlc" => "application/vnd.wap.wmlc",
        "wasm" => "application/wasm",
        "7z" => "application/x-7z-compressed",
        "cco" => "application/x-cocoa",
        "jardiff" => "application/x-java-archive-diff",
        "jnlp" => "application/x-java-jnlp-file",
        "run" => "application/x-makeself",
        "pl" | "pm" => "application/x-perl",
        "prc" | "pdb" => "application/x-pilot",
        "rar" => "application/x-rar-compressed",
        "rpm" => "application/x-redhat-package-manager",
        "sea" => "application/x-sea",
        "swf" => "application/x-shockwave-flash",
        "sit" => "application/x-stuffit",
        "tcl" | "tk" => "application/x-tcl",
        "der" | "pem" | "crt" => "application/x-x509-ca-cert",
        "xpi" => "application/x-xpinstall",
        "xhtml" => "application/xhtml+xml",
        "xspf" => "application/xspf+xml",
        "zip" => "application/zip",
        "bin" | "exe" | "dll" | "deb" | "dmg" | "iso" | "img" | "msi" | "msp" | "msm" | "grib"
        | "grib2" | "bufr" | "nc" => "application/octet-stream",
        "mid" | "midi" | "kar" => "audio/midi",
        "mp3" => "audio/mpeg",
        "ogg" | "oga" => "audio/ogg",
        "m4a" => "audio/x-m4a",
        "ra" => "audio/x-realaudio",
        "3gpp" | "3gp" => "video/3gpp",
        "ts" => "video/mp2t",
        "mp4" => "video/mp4",
        "mpeg" | "mpg" => "video/mpeg",
        "mov" => "video/quicktime",
        "webm" => "video/webm",
        "flv" => "video/x-flv",
        "m4v" => "video/x-m4v",
        "mng" => "video/x-mng",
        "asx" | "asf" => "video/x-ms-asf",
        "wmv" => "video/x-ms-wmv",
        "avi" => "video/x-msvideo",
        other => of_newer(other),
    }
}

/// What is not in nginx's list: newer formats of the web, archives and weather data.
fn of_newer(ending: &str) -> &'static str {
    match ending {
        "webmanifest" => "application/manifest+json",
        "jsonld" => "application/ld+json",
        "epub" => "application/epub+zip",
        "vtt" => "text/vtt",
        "ics" => "text/calendar",
        "apng" => "image/apng",
        "heic" => "image/heic",
        "jxl" => "image/jxl",
        "aac" => "audio/aac",
        "flac" => "audio/flac",
        "opus" => "audio/ogg",
        "ogv" => "video/ogg",
        "glb" => "model/gltf-binary",
        "gltf" => "model/gltf+json",
        "geojson" => "application/geo+json",
        "gz" | "tgz" => "application/gzip",
        "zst" => "application/zstd",
        "bz2" => "application/x-bzip2",
        "xz" => "application/x-xz",
        "tar" => "application/x-tar",
        "otf" => "font/otf",
        "ttf" => "font/ttf",
        "wav" => "audio/wav",
        _ => "text/plain",
    }
}

#[cfg(test)]
mod tests {
    use super::{ENDINGS, of};

    #[test]
    fn every_ending_has_a_type_of_its_own_and_is_listed() {
        for ending in ENDINGS.split_whitespace() {
            assert_ne!(of(&format!("a.{ending}")), "text/plain", "{ending}");
        }
        let (_, source) = include_str!("mime.rs").split_once("match ending.to").unwrap();
        let quoted = source.split("#[cfg").next().unwrap().split('"').skip(1).step_by(2);
        for ending in quoted.filter(|text| !text.contains('/') && !text.is_empty()) {
            assert!(ENDINGS.split_whitespace().any(|listed| listed == ending), "{ending}");
        }
    }

    #[test]
    fn endings_decide_in_any_case() {
        for (name, kind) in [
            ("index.html", "text/html"),
            ("A.B.CSS", "text/css"),
            ("a.tar.gz", "application/gzip"),
            ("readme", "text/plain"),
            ("html", "text/plain"),
            (".json", "application/json"),
            ("a.", "text/plain"),
            ("a.csv", "text/plain"),
            ("a.mjs", "application/javascript"),
            ("a.js.map", "application/json"),
            ("a.wasm", "application/wasm"),
            ("a.avif", "image/avif"),
            ("a.webp", "image/webp"),
            ("a.woff2", "font/woff2"),
            ("manifest.webmanifest", "application/manifest+json"),
            ("subtitles.vtt", "text/vtt"),
            ("a.flac", "audio/flac"),
            ("a.glb", "model/gltf-binary"),
        ] {
            assert_eq!(of(name), kind, "{name}");
        }
    }
}
