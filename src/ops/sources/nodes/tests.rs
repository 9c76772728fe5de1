use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::host::node::tests::Bed;
use crate::ops::sources::gather;

/// A site with a certificate and a file of an unknown setting, and its sources.
fn site(dir: &Path) -> (SourcesInput, Wanted) {
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let here = |name: &str| dir.join(name).display().to_string();
    put("data/db/secret.key", "00");
    put("certs/site.crt", "certificate");
    put("certs/odd.pem", "odd");
    put("huge/not-read", "");
    let text = format!(
        "[Server]\nAddress = http://toy\nDataDir = {}\n[HTTPS]\nCertificate = {}\n[Odd]\nFile = {}\n\
         [Metrics]\nDataPath = {}\n",
        here("data"),
        here("certs/site.crt"),
        here("certs/odd.pem"),
        here("huge"),
    );
    put("etc/connect.gcfg", &text);
    let input =
        SourcesInput { gcfg: Some(dir.join("etc/connect.gcfg")), ..SourcesInput::default() };
    let wanted = gather(&input).unwrap();
    (input, wanted)
}

#[test]
fn a_node_s_configuration_and_what_it_names_is_staged_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (input, mut wanted) = site(&dir);
    let state = dir.join("state");
    let bed = Bed::new(false);
    let files = NodeFiles::new(&state, "a/../b").unwrap().unwrap();
    assert!(NodeFiles::new(&state, "a/../b").unwrap().is_none(), "one run at a time");
    files.add(&bed.node, &[], &input, &mut wanted).unwrap();
    let source = wanted.sources.last().unwrap().clone();
    assert_eq!(source.roles, [Role::NodeConfig]);
    assert!(source.secret && source.dir && source.exists);
    let top = from_bytes(&source.path).to_owned();
    assert!(top.starts_with(state.join("nodes")) && top.ends_with("me@far:2222"), "{top:?}");
    assert_eq!(std::fs::metadata(top.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
    let below = |name: &str| top.join(dir.join(name).strip_prefix("/").unwrap());
    for name in ["etc/connect.gcfg", "certs/site.crt", "certs/odd.pem"] {
        assert_eq!(std::fs::read(below(name)).unwrap(), std::fs::read(dir.join(name)).unwrap());
        let (there, here) = (below(name).metadata().unwrap(), dir.join(name).metadata().unwrap());
        assert_eq!(
            (there.mode(), there.uid(), there.mtime()),
            (here.mode(), here.uid(), here.mtime())
        );
    }
    assert!(!below("data").exists() && !below("huge").exists());
    let plan = wanted.plan().unwrap();
    assert!(plan.roots.contains(&source.path) && plan.secret.contains(&source.path));
    drop(files);
    assert!(!top.exists() && !top.parent().unwrap().exists());
    bed.program("down", "");
    let files = NodeFiles::new(&state, "a/../b").unwrap().unwrap();
    let error = files.add(&bed.node, &[], &input, &mut wanted).unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}

#[test]
fn an_archive_leads_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let one = |path: &[u8], kind| Fetched {
        path: path.to_vec(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
    };
    let link = || FetchedKind::Link(bytes(&outside).to_vec());
    let evil = || FetchedKind::File(b"evil".to_vec());
    let refused = |all: Vec<Fetched>, name: &str| {
        let mut stage = Stage::new(&dir.path().join(name)).unwrap();
        assert!(stage.put(all).is_err(), "{name}");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{name}");
    };
    refused(vec![one(b"/x", link()), one(b"/x/passwd", evil())], "through");
    refused(vec![one(b"/x", link()), one(b"/x", FetchedKind::Dir)], "turned");
    refused(vec![one(b"/x", evil()), one(b"/x/y", evil())], "below-a-file");
    // A second entry of a name is left out, so that it cannot be written through either.
    let mut stage = Stage::new(&dir.path().join("twice")).unwrap();
    stage.put(vec![one(b"/x", link()), one(b"/x", evil())]).unwrap();
    assert!(stage.place(b"/x").is_symlink());
    stage.finish().unwrap();
    symlink(&outside, dir.path().join("state")).unwrap();
    let state = dir.path().join("state");
    let files = NodeFiles::new(&state, "a").unwrap().unwrap();
    assert!(files.dir.starts_with(outside.canonicalize().unwrap()), "{:?}", files.dir);
}
