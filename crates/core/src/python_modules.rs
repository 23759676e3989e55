//! Modules of Python and the packages that have them.

/// Modules whose package has another name, by module.
const NAMES: &[(&str, &str)] = &[
    ("Crypto", "pycryptodome"),
    ("Cryptodome", "pycryptodomex"),
    ("MySQLdb", "mysqlclient"),
    ("OpenSSL", "pyOpenSSL"),
    ("PIL", "Pillow"),
    ("attr", "attrs"),
    ("bs4", "beautifulsoup4"),
    ("corsheaders", "django-cors-headers"),
    ("cv2", "opencv-python-headless"),
    ("cx_Oracle", "oracledb"),
    ("dateutil", "python-dateutil"),
    ("django_filters", "django-filter"),
    ("docx", "python-docx"),
    ("dotenv", "python-dotenv"),
    ("fitz", "PyMuPDF"),
    ("git", "GitPython"),
    ("github", "PyGithub"),
    ("google", "protobuf"),
    ("grpc", "grpcio"),
    ("jose", "python-jose"),
    ("jwt", "PyJWT"),
    ("ldap", "python-ldap"),
    ("magic", "python-magic"),
    ("mpl_toolkits", "matplotlib"),
    ("multipart", "python-multipart"),
    ("nacl", "PyNaCl"),
    ("osgeo", "GDAL"),
    ("pkg_resources", "setuptools"),
    ("pptx", "python-pptx"),
    ("psycopg2", "psycopg2-binary"),
    ("requests_unixsocket", "requests-unixsocket2"),
    ("rest_framework", "djangorestframework"),
    ("ruamel", "ruamel.yaml"),
    ("serial", "pyserial"),
    ("skimage", "scikit-image"),
    ("sklearn", "scikit-learn"),
    ("slugify", "python-slugify"),
    ("socketio", "python-socketio"),
    ("telegram", "python-telegram-bot"),
    ("terminaltables", "terminaltables3"),
    ("usb", "pyusb"),
    ("win32api", "pywin32"),
    ("yaml", "PyYAML"),
    ("zmq", "pyzmq"),
];

/// The requirement that brings a module: the package that is known to have it, else the one of
/// its name.
pub fn requirement(module: &str) -> String {
    let top = module.split('.').next().unwrap_or(module);
    let known = NAMES.iter().find(|(name, _)| *name == top).map(|(_, package)| *package);
    known.map_or_else(|| top.replace('_', "-"), str::to_string)
}

/// The module that a program did not find, by its last lines.
pub fn missing_in(output: &str) -> Option<&str> {
    let last = output.lines().rev().find(|line| {
        line.contains("ModuleNotFoundError: ") || line.contains("ImportError: No module named ")
    })?;
    let name = last.split_once("No module named ")?.1;
    let name = name.trim_matches(|c: char| c == '\'' || c == '"' || c.is_whitespace());
    let name = name.split('.').next().unwrap_or_default();
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_brought_by_the_package_that_has_it() {
        assert_eq!(requirement("yaml"), "PyYAML");
        assert_eq!(requirement("PIL.Image"), "Pillow");
        assert_eq!(requirement("flask_login"), "flask-login");
        assert!(NAMES.windows(2).all(|two| two[0].0 < two[1].0), "sorted, each once");
    }

    #[test]
    fn the_module_that_a_program_lacks_is_in_its_last_lines() {
        let three = "Traceback\n  import yaml\nModuleNotFoundError: No module named 'yaml'\n";
        assert_eq!(missing_in(three), Some("yaml"));
        assert_eq!(missing_in("ImportError: No module named lxml.etree"), Some("lxml"));
        assert_eq!(missing_in("ModuleNotFoundError: No module named '\u{1b}[2J'"), None);
        assert_eq!(missing_in("ImportError: cannot import name 'x'"), None);
        assert_eq!(missing_in("died"), None);
    }
}
