//! A site's configuration.
#![no_main]

use cabk::site::gcfg::parse;
use cabk::site::settings::Settings;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = parse(bytes) {
        let mut settings = Settings::default();
        settings.add_file(b"/etc/site.gcfg", &file);
        for setting in settings.items() {
            let _ = (setting.name(), format!("{setting:?}"));
        }
    }
});
