//! A web server with this package's own configuration, and the demo behind it.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use cloakroom::session::{Id, Record, Store as _};
use cloakroom::store::DirectoryStore;

use crate::client::{Reply, Request};
use crate::process::{Place, Process};

/// The servers, and how the demo is run behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    NginxScgi,
    ApacheCgi,
    ApacheScgi,
    LighttpdCgi,
    LighttpdScgi,
}

impl Front {
    pub(crate) fn is_cgi(self) -> bool {
        matches!(self, Self::ApacheCgi | Self::LighttpdCgi)
    }

    pub(crate) fn is_lighttpd(self) -> bool {
        matches!(self, Self::LighttpdCgi | Self::LighttpdScgi)
    }

    /// The file that an operator installs.
    fn file(self) -> &'static str {
        match self {
            Self::NginxScgi => "nginx/cloakroom.conf",
            Self::ApacheCgi => "apache/cgi.conf",
            Self::ApacheScgi => "apache/scgi.conf",
            Self::LighttpdCgi => "lighttpd/cgi.conf",
            Self::LighttpdScgi => "lighttpd/scgi.conf",
        }
    }
}

/// How a site differs from the plainest one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    /// The mount; empty is the root.
    pub(crate) mount: &'static str,
    pub(crate) https: bool,
    /// The program's own limit of a message-body, below that of the server.
    pub(crate) body_limit: Option<u64>,
    /// The token that the deployment answers the doctor for.
    pub(crate) doctor_token: Option<&'static str>,
    /// More words for the command line of the pool.
    pub(crate) pool_arguments: &'static [&'static str],
    /// A CGI script sweeps after each request.
    pub(crate) sweeps: bool,
}

/// A site that is up.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    plan: Plan,
    // In the order in which they are to go.
    _server: Process,
    pool: Option<Process>,
    place: Place,
}

impl Site {
    pub(crate) fn start(front: Front, plan: Plan) -> Self {
        Self::start_with(front, plan, |file| file)
    }

    /// A site whose file, adapted already, is changed once more.
    pub(crate) fn start_with(front: Front, plan: Plan, edit: impl FnOnce(String) -> String) -> Self {
        let place = Place::new();
        fs::create_dir(place.path("lib")).unwrap();
        install(Path::new(env!("CARGO_BIN_EXE_demo")), &place.path("lib/demo"));
        place.private("sessions", web_user().filter(|_| front.is_cgi()).map(|user| (user.id, user.group)));
        let pool = (!front.is_cgi()).then(|| start_pool(&place, plan));
        let (address, server) = start_server(front, plan, &place, edit);
        Self { address, plan, _server: server, pool, place }
    }

    /// A site without anything special.
    pub(crate) fn plain(front: Front) -> Self {
        Self::start(front, Plan::default())
    }

    /// A request to a path below the mount.
    pub(crate) fn request(&self, method: &'static str, path: impl AsRef<[u8]>) -> Request {
        Request::new(self.address, method, [self.plan.mount.as_bytes(), path.as_ref()].concat())
    }

    pub(crate) fn get(&self, path: impl AsRef<[u8]>) -> Reply {
        self.request("GET", path).send()
    }

    /// Logs in, and gives the session ID.
    pub(crate) fn log_in(&self) -> String {
        let reply = self.request("POST", "/login").form("name=alice").send();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let session = reply.session().expect("a login hands out a session");
        assert!(self.place.path("sessions").join(&session).exists(), "the session is not where the file says");
        session
    }

    /// The directory of the sessions.
    pub(crate) fn sessions(&self) -> PathBuf {
        self.place.path("sessions")
    }

    /// Keeps so many sessions that are over, or so many that are not, as the program would.
    pub(crate) fn keep_sessions(&self, count: usize, over: bool) {
        // {"u": "x", "c": 0, "e": end in milliseconds}
        let end = if over { 1 } else { u64::MAX };
        let bytes = [b"\xa3\x61u\x61x\x61c\x00\x61e\x1b".as_slice(), &end.to_be_bytes()].concat();
        let record = Record::decode(&bytes).unwrap();
        let owner = fs::metadata(self.sessions()).unwrap();
        // The store takes no directory that belongs to another user than this process's.
        let own =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir_in(self.place.directory());
        let own = own.unwrap();
        let store = DirectoryStore::at(own.path());
        for _ in 0..count {
            let id = Id::generate().unwrap();
            store.create(&id, &record).unwrap();
            let file = own.path().join(&*id.to_text());
            std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
            fs::rename(file, self.sessions().join(&*id.to_text())).unwrap();
        }
    }

    /// What `/check` says in the line `name`.
    pub(crate) fn check(&self, session: &str, name: &str) -> String {
        let reply = self.request("GET", "/check").session(session).send();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let start = format!("{name}: ");
        let text = reply.text();
        text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    }

    /// A request by curl(1), which speaks TLS. The response's head and message-body, as they came.
    pub(crate) fn curl(&self, path: &str, more: &[&str]) -> String {
        let url = format!("https://{}{}{path}", self.address, self.plan.mount);
        let output = Command::new("curl").args(["-sSkig", "-m", "60", &url]).args(more).output().unwrap();
        assert!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends the pool.
    pub(crate) fn stop_pool(&mut self) {
        self.pool.take().expect("a pool");
    }

    pub(crate) fn start_pool(&mut self) {
        self.pool = Some(start_pool(&self.place, self.plan));
    }

    /// What the pool has logged.
    pub(crate) fn pool_log(&self) -> String {
        self.pool.as_ref().map(Process::log).unwrap_or_default()
    }
}

/// The web server alone, its file changed once more, and where it listens; a pool is expected on `scgi.sock` in `place`.
pub(crate) fn start_server(
    front: Front,
    plan: Plan,
    place: &Place,
    edit: impl FnOnce(String) -> String,
) -> (SocketAddr, Process) {
    let setting = Setting { front, plan, place, address: free_address(), user: web_user() };
    if plan.https {
        make_certificate(place);
    }
    fs::write(place.path("site.conf"), edit(setting.site_file())).unwrap();
    let command = match front {
        Front::NginxScgi => setting.nginx(),
        Front::ApacheCgi | Front::ApacheScgi => setting.apache(),
        Front::LighttpdCgi | Front::LighttpdScgi => setting.lighttpd(),
    };
    let server = Process::start(command, place.path("server.log"));
    server.wait_for("the server listens", |_| TcpStream::connect(setting.address).ok());
    if front == Front::ApacheCgi {
        // Apache's daemon for scripts makes its socket meanwhile, and then gives it to the user that asks for them.
        let owner = setting.user.as_ref().map(|user| user.id);
        let is_given = |file: &fs::DirEntry| {
            let named = file.file_name().to_string_lossy().starts_with("cgid.sock");
            named && file.metadata().is_ok_and(|file| owner.is_none_or(|owner| file.uid() == owner))
        };
        server.wait_for("the daemon for scripts listens", |_| {
            fs::read_dir(place.directory()).ok()?.flatten().find(is_given).map(drop)
        });
    }
    (setting.address, server)
}

fn start_pool(place: &Place, plan: Plan) -> Process {
    let mut command = Command::new(place.path("lib/demo"));
    command.arg("--scgi").arg(format!("unix:{}", place.path("scgi.sock").display()));
    command.arg("--sessions").arg(place.path("sessions"));
    // The server's workers run as another user, who is not in our group as he would be on a real site.
    command.args(["--socket-mode", "0666", "--workers", "4", "--graceful-timeout", "2"]);
    if !plan.mount.is_empty() {
        command.args(["--script-name", plan.mount]);
    }
    if let Some(limit) = plan.body_limit {
        command.args(["--body-limit", &limit.to_string()]);
    }
    command.args(plan.pool_arguments);
    if let Some(token) = plan.doctor_token {
        command.env("CLOAKROOM_DOCTOR_TOKEN", token);
    }
    // One log for all the pools of a test: only what this one adds counts.
    let log = place.path("pool.log");
    let before = fs::read(&log).map_or(0, |bytes| bytes.len());
    let pool = Process::start(command, log);
    pool.wait_for("the pool is ready", |pool| pool.log()[before..].contains(" ready workers=").then_some(()));
    pool
}

/// The same program under another name: a link where that is possible.
pub(crate) fn install(program: &Path, name: &Path) {
    if fs::hard_link(program, name).is_err() {
        fs::copy(program, name).unwrap();
    }
}

fn make_certificate(place: &Place) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=localhost", "-out"]).arg(place.path("example.org.pem"));
    let output = command.arg("-keyout").arg(place.path("example.org.key")).output().unwrap();
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    // lighttpd wants both in one file.
    let both = [place.path("example.org.key"), place.path("example.org.pem")].map(|path| fs::read(path).unwrap());
    fs::write(place.path("both.pem"), both.concat()).unwrap();
}

/// An address of this test alone: nobody else binds to this part of 127.0.0.0/8, so that the port stays free until the
/// server takes it.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed).max(1);
    let ip = IpAddr::V4(Ipv4Addr::new(127, high, low, number));
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// Whom servers become that root has started.
struct User {
    id: u32,
    group: u32,
}

/// Debian's user of web servers, if we may become it.
fn web_user() -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("www-data:")).expect("the user www-data");
    let fields: Vec<&str> = line.split(':').collect();
    Some(User { id: fields[2].parse().unwrap(), group: fields[3].parse().unwrap() })
}

struct Setting<'a> {
    front: Front,
    plan: Plan,
    place: &'a Place,
    address: SocketAddr,
    user: Option<User>,
}

/// A file of `deploy/` whose lines are adapted as an operator would. What is to be replaced must be there.
pub(crate) struct Adapted(String);

impl Adapted {
    pub(crate) fn read(file: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
        Self(fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    pub(crate) fn replace(self, old: &str, new: &str) -> Self {
        // Not only in a comment, unless it is one that becomes a line.
        let counts = |line: &str| old.starts_with('#') || !line.trim_start().starts_with('#');
        let mut lines = self.0.lines().filter(|line| counts(line));
        assert!(lines.any(|line| line.contains(old)), "{old:?} is not in the file:\n{}", self.0);
        Self(self.0.replace(old, new))
    }

    /// Replaces `old` by `new`, which the file itself recommends in a comment.
    fn mount(self, old: &str, new: &str) -> Self {
        let comments: String = self.0.lines().filter(|line| line.trim_start().starts_with('#')).collect();
        assert!(comments.contains(new), "the file does not say how to get {new:?}:\n{}", self.0);
        self.replace(old, new)
    }

    pub(crate) fn text(self) -> String {
        self.0
    }
}

impl Setting<'_> {
    fn path(&self, name: &str) -> String {
        self.place.path(name).to_str().unwrap().to_owned()
    }

    /// The file of `deploy/`, with the paths, the address and the mount of this test.
    fn site_file(&self) -> String {
        let address = self.address;
        let mut file = Adapted::read(self.front.file());
        if self.front.is_cgi() {
            file = file.replace("/var/lib/cloakroom-demo/sessions", &self.path("sessions"));
            let limit = self.plan.body_limit.map(|limit| ("CLOAKROOM_BODY_LIMIT", limit.to_string()));
            let sweep = self.plan.sweeps.then(|| ("CLOAKROOM_SWEEP_ONE_IN", "1".to_owned()));
            let token = self.plan.doctor_token.map(|token| ("CLOAKROOM_DOCTOR_TOKEN", token.to_owned()));
            for (name, value) in limit.into_iter().chain(sweep).chain(token) {
                file = if self.front == Front::ApacheCgi {
                    file.replace(
                        "    SetEnv CLOAKROOM_SESSIONS ",
                        &format!("    SetEnv {name} {value}\n    SetEnv CLOAKROOM_SESSIONS "),
                    )
                } else {
                    let variable = format!("\"{name}\" => \"{value}\", ");
                    file.replace("\"CLOAKROOM_SESSIONS\" =>", &(variable + "\"CLOAKROOM_SESSIONS\" =>"))
                };
            }
        } else {
            file = file.replace("/run/cloakroom-demo/scgi.sock", &self.path("scgi.sock"));
        }
        if self.plan.mount.is_empty() {
            file = match self.front {
                Front::ApacheCgi | Front::LighttpdCgi => file.replace("/usr/local/lib/cloakroom", &self.path("lib")),
                _ => file,
            };
        } else {
            assert_eq!(self.plan.mount, "/app", "the files recommend /app");
            file = match self.front {
                Front::NginxScgi => file.mount("location / {", "location ~ ^/app(/|$) {"),
                Front::ApacheScgi => file.mount("<Location \"/\">", "<Location \"/app\">"),
                Front::ApacheCgi => file
                    .mount(
                        "ScriptAlias \"/\" \"/usr/local/lib/cloakroom/demo/\"",
                        "ScriptAlias \"/app\" \"/usr/local/lib/cloakroom/demo\"",
                    )
                    .replace("/usr/local/lib/cloakroom", &self.path("lib")),
                Front::LighttpdCgi => file
                    .mount("$HTTP[\"url\"] =~ \"^/\"", "$HTTP[\"url\"] =~ \"^/app(/|$)\"")
                    .mount(
                        "( \"/\" => \"/usr/local/lib/cloakroom/demo/\" )",
                        "( \"/app\" => \"/usr/local/lib/cloakroom/demo\" )",
                    )
                    .replace("/usr/local/lib/cloakroom", &self.path("lib")),
                Front::LighttpdScgi => file.mount("scgi.server = ( \"/\" =>", "scgi.server = ( \"/app\" =>"),
            };
        }
        match self.front {
            Front::NginxScgi if self.plan.https => file
                .replace("listen 80; ", "# ")
                .replace("#listen 443 ssl;", &format!("listen {address} ssl;"))
                .replace("#ssl_certificate /etc/ssl/certs", &format!("ssl_certificate {}", self.path("")))
                .replace("#ssl_certificate_key /etc/ssl/private", &format!("ssl_certificate_key {}", self.path(""))),
            Front::NginxScgi => file.replace("listen 80;", &format!("listen {address};")),
            Front::ApacheCgi | Front::ApacheScgi => {
                file = file.replace("<VirtualHost *:80>", &format!("<VirtualHost {address}>"));
                if self.plan.https {
                    file = file
                        .replace("#SSLEngine", "SSLEngine")
                        .replace("#SSLCertificateFile /etc/ssl/certs", &format!("SSLCertificateFile {}", self.path("")))
                        .replace(
                            "#SSLCertificateKeyFile /etc/ssl/private",
                            &format!("SSLCertificateKeyFile {}", self.path("")),
                        );
                }
                file
            }
            Front::LighttpdCgi | Front::LighttpdScgi => file,
        }
        .text()
    }

    fn nginx(&self) -> Command {
        let user = self.user.as_ref().map_or("", |_| "user www-data;");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|name| format!("{name}_temp_path {};", self.path(name))).join("\n");
        let main = format!(
            "{user}\ndaemon off;\nworker_processes 2;\npid {pid};\nerror_log {log} info;\n\
             events {{ worker_connections 256; }}\nhttp {{\naccess_log off;\n{temporary}\ninclude {site};\n}}\n",
            pid = self.path("nginx.pid"),
            log = self.path("error.log"),
            site = self.path("site.conf"),
        );
        fs::write(self.place.path("nginx.conf"), main).unwrap();
        let mut command = server("nginx");
        command.arg("-p").arg(self.place.directory()).args(["-e", "startup.log", "-c"]);
        command.arg(self.place.path("nginx.conf"));
        command
    }

    fn apache(&self) -> Command {
        let mut modules = vec!["mpm_event", "authz_core", "alias", "env"];
        modules.extend(if self.front.is_cgi() { &["cgid"][..] } else { &["proxy", "proxy_scgi"] });
        if self.plan.https {
            modules.extend(["socache_shmcb", "ssl"]);
        }
        let module = |name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so");
        let mut lines: Vec<String> = modules.into_iter().map(module).collect();
        if self.front.is_cgi() {
            lines.push(format!("ScriptSock \"{}\"", self.path("cgid.sock")));
        }
        if self.user.is_some() {
            lines.push("User www-data\nGroup www-data".to_owned());
        }
        let directory = self.path("");
        lines.push(format!("ServerRoot \"{directory}\"\nDefaultRuntimeDir \"{directory}\"\nServerName localhost"));
        lines.push(format!("PidFile \"{}\"\nErrorLog \"{}\"", self.path("apache.pid"), self.path("error.log")));
        lines.push(format!("Listen {}\nStartServers 1\nThreadsPerChild 25", self.address));
        lines.push(format!("Include \"{}\"\n", self.path("site.conf")));
        fs::write(self.place.path("apache.conf"), lines.join("\n")).unwrap();
        let mut command = server("apache2");
        command.arg("-DFOREGROUND").arg("-f").arg(self.place.path("apache.conf"));
        command
    }

    fn lighttpd(&self) -> Command {
        for name in ["htdocs", "uploads"] {
            self.place.private(name, self.user.as_ref().map(|user| (user.id, user.group)));
        }
        // With the modules and the normalisation of Debian's lighttpd.conf.
        let mut lines = vec![
            "server.modules = ( \"mod_indexfile\", \"mod_access\", \"mod_redirect\" )\n\
             server.http-parseopts = ( \"header-strict\" => \"enable\", \"host-strict\" => \"enable\",\n\
             \"host-normalize\" => \"enable\", \"url-normalize-unreserved\" => \"enable\",\n\
             \"url-normalize-required\" => \"enable\", \"url-ctrls-reject\" => \"enable\",\n\
             \"url-path-2f-decode\" => \"enable\", \"url-path-dotseg-remove\" => \"enable\" )\n\
             index-file.names = ( \"index.php\", \"index.html\" )\nurl.access-deny = ( \"~\", \".inc\" )"
                .to_owned(),
            format!("server.document-root = \"{}\"", self.path("htdocs")),
            format!("server.upload-dirs = ( \"{}\" )", self.path("uploads")),
            format!("server.bind = \"{}\"\nserver.port = {}", self.address.ip(), self.address.port()),
        ];
        if self.user.is_some() {
            lines.push("server.username = \"www-data\"\nserver.groupname = \"www-data\"".to_owned());
        }
        if self.plan.https {
            lines.push("server.modules += ( \"mod_openssl\" )\nssl.engine = \"enable\"".to_owned());
            lines.push(format!("ssl.pemfile = \"{}\"", self.path("both.pem")));
        }
        lines.push(format!("include \"{}\"\n", self.path("site.conf")));
        fs::write(self.place.path("lighttpd.conf"), lines.join("\n")).unwrap();
        let mut command = server("lighttpd");
        command.arg("-D").arg("-f").arg(self.place.path("lighttpd.conf"));
        command
    }
}

/// A server by its name: Debian keeps them where only root's PATH leads. Its environment is as empty as at the start of
/// a service, since Apache hands it on.
fn server(name: &str) -> Command {
    let path = format!("/usr/sbin/{name}");
    let mut command = Command::new(if Path::new(&path).exists() { path } else { name.to_owned() });
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}
