//! A configuration that only another node has.

use crate::cluster;
use crate::world::{Done, SITE};

#[test]
fn a_configuration_on_another_node_is_read_there_and_its_data_here() {
    let Some(cluster) = cluster() else { return };
    cluster.configure("[service]\nunits = [\"toy.service\"]\n");
    let etc = cluster.world.path("afar");
    std::fs::create_dir(&etc).unwrap();
    let (etc, here) = (etc.display(), cluster.world.path("connect.gcfg"));
    cluster.by_hand(1, &format!("mount -t tmpfs tmpfs {etc} && cp {} {etc}/", here.display()));
    std::fs::remove_file(&here).unwrap();
    assert!(!cluster.world.path("afar/connect.gcfg").exists(), "only that node has it");
    let gcfg = format!("{}{etc}/connect.gcfg", cluster.address(1));

    let shown = ["discover", "--json", "--site", &gcfg, "--node", &cluster.address(0)];
    let found = Done::of(&cluster.cabk(&shown).output().unwrap()).expect(0);
    let sources = found.json["sources"].as_array().unwrap();
    let of = |role: &str| sources.iter().filter(|s| s["role"] == role).collect::<Vec<_>>();
    let data = cluster.world.path("data").display().to_string();
    assert_eq!(
        (&of("data-dir")[0]["path"], &of("data-dir")[0]["exists"]),
        (&data.into(), &true.into())
    );
    assert_eq!(of("node-config").len(), 2, "that of the node, and of the one that has the site's");
    assert!(of("config").is_empty(), "nothing of it is this machine's: {}", found.stdout);
    let kept = cluster.world.path("state/nodes");
    let left: Vec<_> = std::fs::read_dir(kept).unwrap().flatten().collect();
    assert!(left.iter().all(|one| one.path().is_file()), "nothing is left: {left:?}");

    let mut args = vec!["snapshot", "--json", "--site-name", SITE, "--allow-volatile-state"];
    let nodes: Vec<String> = (0..3).map(|number| cluster.address(number)).collect();
    args.extend(["--site", &gcfg, "--wait-quiet", "300ms"]);
    nodes.iter().for_each(|node| args.extend(["--node", node]));
    let done = Done::of(&cluster.cabk(&args).output().unwrap()).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
    let tree = cluster.world.kept(done.id());
    let ending = format!("{}{etc}/connect.gcfg", nodes[1].trim_start_matches("ssh://"));
    let is_it = |path: &&Vec<u8>| String::from_utf8_lossy(path).ends_with(&ending);
    assert_eq!(tree.keys().filter(is_it).count(), 1, "{ending}");
    assert!(tree.keys().any(|path| path.ends_with(b"/data/db/connect.db")));
    assert!((0..3).all(|number| cluster.runs(number)));

    let gone = gcfg.replace("connect.gcfg", "none.gcfg");
    args[5 + 1] = &gone;
    let refused = Done::of(&cluster.cabk(&args).output().unwrap()).expect(22);
    assert!(refused.stderr.contains("is not there on"), "{}", refused.stderr);
}

#[test]
fn a_stop_waits_until_no_node_renders() {
    let Some(cluster) = cluster() else { return };
    // Reads, so that it stands against nothing but idleness.
    let file = cluster.world.path("data/apps/1/app.R");
    let script = format!(
        "setsid sh -c 'exec 3<{}; exec sleep 3' </dev/null >/dev/null 2>&1 &",
        file.display()
    );
    cluster.by_hand(2, &script);
    let done = cluster.snapshot(&["--wait-idle", "60s"]).expect(0);
    let took = done.json["summary"]["duration_ms"].as_u64().unwrap();
    assert!((1500..60_000).contains(&took), "{took} ms");
}
