//! The throw-away site: a configuration, a data directory with bundles and their unpacked copies.
//! The database is the toy service's ([`super::toy`]).

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use super::archive::{Member, tar_gz};

/// Host of `Server.Address`, which is the site's label.
pub(super) const LABEL: &str = "connect-demo.example.com";

/// The bundle's time of upload: its content says it, not the clock.
const PUBLISHED: u32 = 1_700_000_000;

/// The applications: their number, name, main file, and how often they were published at first.
const APPS: [(u32, &str, &str, u32); 3] = [
    (1, "sales-dashboard", "app.py", 3),
    (2, "weekly-report", "index.qmd", 2),
    (3, "pricing-api", "plumber.R", 1),
];

/// Where the demonstration keeps its things: all of it below one temporary directory.
#[derive(Clone, Debug)]
pub struct Places {
    root: PathBuf,
}

/// Files written and their bytes, bundles apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Written {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) bundles: u64,
    pub(super) bundle_bytes: u64,
}

impl Places {
    /// Places below a directory, whose path has no symbolic links.
    #[must_use]
    pub fn below(root: PathBuf) -> Self {
        Self { root }
    }

    /// The temporary directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the site consists of.
    #[must_use]
    pub fn site(&self) -> PathBuf {
        self.root.join("site")
    }

    /// The site's configuration.
    #[must_use]
    pub fn gcfg(&self) -> PathBuf {
        self.root.join("site/etc/rstudio-connect/rstudio-connect.gcfg")
    }

    /// The environment file of the service: the site's own, so that none of this machine counts.
    #[must_use]
    pub fn env_file(&self) -> PathBuf {
        self.root.join("site/etc/default/rstudio-connect")
    }

    /// `Server.DataDir`.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("site/var/lib/rstudio-connect")
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data().join("db/connect.db")
    }

    /// Where the toy service says how it is, beside the site.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.root.join("repository")
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Where the second snapshot is restored to.
    #[must_use]
    pub fn restored(&self) -> PathBuf {
        self.root.join("restored")
    }

    /// Where the capture would be restored to.
    #[must_use]
    pub fn refused(&self) -> PathBuf {
        self.root.join("refused")
    }

    /// The file that the rendering writes.
    #[must_use]
    pub fn rendering(&self) -> PathBuf {
        self.data().join("apps/2/2/render.log")
    }
}

/// Makes the site.
pub(super) fn make(places: &Places) -> io::Result<Written> {
    let mut written = Written::default();
    let data = places.data();
    let text = data.to_str().ok_or_else(|| io::Error::other("the path is not UTF-8"))?;
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    let gcfg = format!(
        "; A throw-away site.\n[Server]\nAddress = \"https://{LABEL}\"\nDataDir = \"{quoted}\"\n\n\
         [HTTP]\nListen = \":3939\"\n\n[Database]\nProvider = \"SQLite\"\n"
    );
    written.file(&places.gcfg(), 0o600, gcfg.as_bytes())?;
    written.file(&places.env_file(), 0o644, b"RSTUDIO_CONNECT_DEMO=1\n")?;
    let secret = crate::base::id::to_hex(&noise("secret.key", 0, 256));
    written.file(&data.join("db/secret.key"), 0o600, secret.as_bytes())?;
    for dir in ["run", "state", "cache"] {
        directory(&places.root.join(dir))?;
    }
    for (app, name, main, versions) in APPS {
        for version in 1..=versions {
            written.publish(places, app, name, main, version)?;
        }
        let app = data.join(format!("apps/{app}"));
        symlink(versions.to_string(), app.join("active"))?;
        // Two names of one file, as caches of packages have many.
        let main = app.join(format!("{versions}/{main}"));
        std::fs::hard_link(main, app.join("main"))?;
        written.files += 2;
    }
    Ok(written)
}

/// Publishes a further version of the first application; the new files and bytes.
pub(super) fn publish_again(places: &Places) -> io::Result<Written> {
    let (app, name, main, versions) = APPS[0];
    let mut written = Written::default();
    written.publish(places, app, name, main, versions + 1)?;
    Ok(written)
}

impl Written {
    fn publish(
        &mut self,
        places: &Places,
        app: u32,
        name: &str,
        main: &str,
        version: u32,
    ) -> io::Result<()> {
        let manifest = format!(
            "{{\"version\": 1, \"metadata\": {{\"entrypoint\": \"{main}\"}}, \"name\": \"{name}\"}}\n"
        );
        let program = format!("# {name}, version {version}\nprint(\"{name}\")\n");
        let table = table(app);
        let model = noise(name, 0, 400_000);
        let news = noise(name, version, 6_000);
        let members = [
            Member { name: "manifest.json", mode: 0o644, data: manifest.as_bytes() },
            Member { name: main, mode: 0o644, data: program.as_bytes() },
            Member { name: "data/sales.csv", mode: 0o640, data: table.as_bytes() },
            Member { name: "data/model.rds", mode: 0o644, data: &model },
            Member { name: "data/news.bin", mode: 0o644, data: &news },
        ];
        let archive = tar_gz(&members, PUBLISHED + version);
        let data = places.data();
        self.bundles += 1;
        self.bundle_bytes += archive.len() as u64;
        self.file(&data.join(format!("bundles/{app}/{version}.tar.gz")), 0o600, &archive)?;
        for member in members {
            let path = data.join(format!("apps/{app}/{version}")).join(member.name);
            self.file(&path, member.mode, member.data)?;
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        use std::io::Write;
        if let Some(above) = path.parent() {
            directory(above)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        self.files += 1;
        self.bytes += content.len() as u64;
        Ok(())
    }
}

fn directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A table that compresses about as well as a business's.
fn table(app: u32) -> String {
    use std::fmt::Write;
    let digits = noise("table", app, 24_000);
    let mut text = String::from("day,region,amount\n");
    for (row, four) in digits.chunks_exact(4).enumerate() {
        let region = ["north", "south", "east", "west"][usize::from(four[0] & 3)];
        let amount = u16::from_le_bytes([four[1], four[2]]);
        // Writing into a text does not fail.
        let _ =
            writeln!(text, "2024-{:02}-{:02},{region},{amount}", row / 28 % 12 + 1, row % 28 + 1);
    }
    text
}

/// Bytes that look random and are always the same.
fn noise(name: &str, number: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
