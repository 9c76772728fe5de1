//! Caches that can be built again are left out on request, and nothing else with them.

use crate::site::Site;
use crate::world::{World, bytes};

/// All that is a cache, as the manual of the option has it.
const CACHES: [&str; 6] = [
    "packrat/cache/v2/pkg",
    "renv/v5/pkg",
    "python-environments/pip/x/lib.py",
    "r-environments/x/pkg",
    "nodejs-environments/x/index.js",
    "quarto-cache/x",
];

/// Names that look alike or lie beside, and what a site cannot be brought back without.
const STAYS: [&str; 9] = [
    "packrat/desc",
    "apps/1/11/renv/activate.R",
    "apps/1/11/packrat/cache/own",
    "bundles/1/11.tar.gz",
    "bundles/renv/1.tar.gz",
    "db/secret.key",
    "db/connect.db",
    "db/renv/instrumentation.db",
    "apps/1/11/app.R",
];

#[test]
fn rebuildable_caches_are_left_out_and_recorded() {
    let site = Site::of(World::in_memory());
    for name in CACHES.iter().chain(&STAYS) {
        if !site.path("data").join(name).exists() {
            site.put(&format!("data/{name}"), name);
        }
    }
    let all = site.snapshot(&[]).expect(0);
    let args = ["--exclude-runtimes", "--exclude", "*.db", "--exclude", "bundles", "--exclude"];
    let done = site.snapshot(&[&args[..], &["secret.key"]].concat()).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
    let inside = site.world.look();
    let (whole, tree) = (inside.tree(all.id()), inside.tree(done.id()));
    let path = |name: &str| bytes(&site.path("data").join(name));
    for name in CACHES {
        assert!(whole.contains_key(&path(name)), "{name} is there without the option");
        assert!(!tree.contains_key(&path(name)), "{name} is left out");
    }
    for name in STAYS {
        assert!(tree.contains_key(&path(name)), "{name} stays in");
    }
    for name in ["bundles/1/11.tar.gz", "db/secret.key", "db/connect.db"] {
        let kept = inside.bytes(&tree[&path(name)]);
        assert!(kept == std::fs::read(site.path("data").join(name)).unwrap(), "{name}");
    }
    assert!(done.stderr.contains("data/bundles matches a pattern and stays in"), "{}", done.stderr);

    // Manifest and `show` have every pattern in force.
    assert!(inside.body(all.id()).excludes.is_empty());
    let excludes = &inside.body(done.id()).excludes;
    let data = site.path("data").display().to_string();
    let shown = site.world.run(&["show", done.id()]).expect(0).stdout;
    let json = site.world.run(&["show", done.id(), "--json"]).expect(0).json;
    assert_eq!(json["excludes"].as_array().unwrap().len(), excludes.len());
    assert_eq!(excludes.len(), 3 + CACHES.len(), "{excludes:?}");
    let dirs = ["packrat/cache", "renv", "python-environments", "r-environments"];
    let dirs = dirs.into_iter().chain(["nodejs-environments", "quarto-cache"]);
    let runtimes = dirs.map(|dir| format!("{data}/{dir}/"));
    for pattern in runtimes.chain(["*.db".into(), "bundles".into(), "secret.key".into()]) {
        assert!(excludes.contains(&pattern), "{pattern}: {excludes:?}");
        assert!(shown.contains(&format!("left out: {pattern}")), "{pattern}: {shown}");
        assert!(json["excludes"].as_array().unwrap().contains(&pattern.clone().into()), "{json}");
    }
    site.is_in_order();
}

#[test]
fn on_plain_directories_it_says_that_it_does_nothing() {
    let world = World::in_memory();
    let path = world.put("renv/pkg", "x");
    let done = world.snapshot(&["--exclude-runtimes"]).expect(0);
    assert!(done.stderr.contains("no effect on plain directories"), "{}", done.stderr);
    assert!(world.kept(done.id()).contains_key(&bytes(&path)));
}
