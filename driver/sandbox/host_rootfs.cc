#include "driver/sandbox/host_rootfs.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/sandbox/accounts.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kRunBytes = 1 << 20;
constexpr size_t kMaxEtcFile = 1 << 20;  // passwd, group, hosts of the host

// Merged-usr hosts have links for all but the first.
constexpr const char* kSystemTrees[] = {"/usr",   "/bin",   "/sbin",  "/lib",
                                        "/lib32", "/lib64", "/libx32"};

// What programs need of /etc and nobody minds to show. Everything else, above all credentials,
// stays out: a job mounts what it wants and the operator allows.
constexpr const char* kEtcEntries[] = {"alternatives",    "ca-certificates", "ca-certificates.conf",
                                       "crypto-policies", "fonts",           "gai.conf",
                                       "host.conf",       "ld.so.cache",     "ld.so.conf",
                                       "ld.so.conf.d",    "localtime",       "nsswitch.conf",
                                       "os-release",      "pki/ca-trust",    "pki/java",
                                       "pki/tls/certs",   "protocols",       "services",
                                       "ssl/certs",       "ssl/openssl.cnf", "timezone"};
// Each distribution names its JDK settings differently: java-17-openjdk, java, .java.
constexpr char kJavaPrefix[] = "java";
constexpr char kHiddenJava[] = "/etc/.java";
constexpr char kResolvConf[] = "/etc/resolv.conf";
// The certificates of Debian's JDKs, which have a link to here.
constexpr char kJavaCertificates[] = "/etc/ssl/certs/java";

// No home is made at or below these: they are read-only, the kernel's, or bring it along.
constexpr const char* kNoHomeBelow[] = {"/alloc", "/local", "/secrets", "/tmp",        "/usr",
                                        "/bin",   "/sbin",  "/lib",     "/dev",        "/proc",
                                        "/sys",   "/run",   "/etc",     "/nonexistent"};

pb::MountSpec Entry(pb::MountSpec::Kind kind, const std::string& target) {
  pb::MountSpec mount;
  mount.set_kind(kind);
  mount.set_target(target);
  return mount;
}

pb::MountSpec Bind(const std::string& source, const std::string& target) {
  pb::MountSpec mount = Entry(pb::MountSpec::BIND, target);
  mount.set_source(source);
  return mount;
}

pb::MountSpec ReadOnlyBind(const std::string& source, const std::string& target) {
  pb::MountSpec mount = Bind(source, target);
  mount.set_read_only(true);
  return mount;
}

pb::MountSpec Link(const std::string& text, const std::string& target) {
  pb::MountSpec mount = Entry(pb::MountSpec::SYMLINK, target);
  mount.set_source(text);
  return mount;
}

pb::MountSpec File(const std::string& target, const std::string& content) {
  pb::MountSpec mount = Entry(pb::MountSpec::FILE, target);
  mount.set_content(content);
  mount.set_mode(0644);
  return mount;
}

pb::MountSpec Tmpfs(const std::string& target, uint32_t mode, uint64_t size_bytes) {
  pb::MountSpec mount = Entry(pb::MountSpec::TMPFS, target);
  mount.set_mode(mode);
  mount.set_size_bytes(size_bytes);
  return mount;
}

bool IsPlainAbsolute(const std::string& path) {
  if (path.size() < 2 || path[0] != '/' || path.find('\0') != std::string::npos) return false;
  for (absl::string_view part : absl::StrSplit(absl::string_view(path).substr(1), '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

bool IsAtOrBelow(const std::string& path, const std::string& directory) {
  return path == directory || absl::StartsWith(path, directory + "/");
}

std::string Prefix(const std::string& host_root) { return host_root == "/" ? "" : host_root; }

// Appends the parts of one plan, in the order of PlanHostRootfs.
class Plan {
 public:
  explicit Plan(const HostRootfs& rootfs)
      : rootfs_(rootfs),
        prefix_(Prefix(rootfs.host_root)),
        entries_(rootfs.host_entries != nullptr ? rootfs.host_entries
                                                : std::make_shared<const HostEntries>(
                                                      LookAtHost(HostPlacesOf(rootfs.host_root)))) {
  }

  absl::Status AddSystemTrees() {
    for (const std::string path : kSystemTrees) AddHostEntry(path);
    if (mounts_.empty() || mounts_.front().target() != "/usr") {
      return absl::FailedPreconditionError(absl::StrCat(
          "the host has no /usr to share with the task below '", rootfs_.host_root, "'"));
    }
    return absl::OkStatus();
  }

  void AddExtraTrees() {
    for (const std::string& path : rootfs_.extra_read_only) {
      if (!IsAtOrBelow(path, "/usr")) AddShared(ReadOnlyBind(HostPath(path), path));
    }
  }

  // Of an image's /usr nothing is known to be the same.
  void AddNodeJava() {
    if (rootfs_.extra_read_only.empty()) return;
    for (const std::string& path : rootfs_.extra_read_only) {
      Add(ReadOnlyBind(HostPath(path), path));
    }
    AddJavaSettings();
    AddHostEntry(kJavaCertificates);
  }

  absl::Status AddEtcOfImage() {
    RETURN_IF_ERROR(AddAccounts());
    AddResolver();
    return AddHosts();
  }

  absl::Status AddEtc() {
    RETURN_IF_ERROR(AddAccounts());
    for (const std::string name : kEtcEntries) AddHostEntry("/etc/" + name);
    AddJavaSettings();
    AddResolver();
    return AddHosts();
  }

  void AddKernelTrees() {
    Add(Tmpfs("/tmp", 01777, rootfs_.tmp_size_bytes));
    Add(Entry(pb::MountSpec::PROC, "/proc"));
    pb::MountSpec dev = Entry(pb::MountSpec::DEV, "/dev");
    dev.set_read_only(true);
    AddShared(std::move(dev));
    Add(Entry(pb::MountSpec::DEVPTS, "/dev/pts"));
    pb::MountSpec shm = Tmpfs("/dev/shm", 01777, rootfs_.shm_size_bytes);
    shm.set_no_exec(true);
    Add(std::move(shm));
    Add(Entry(pb::MountSpec::MQUEUE, "/dev/mqueue"));
    pb::MountSpec sys = Entry(pb::MountSpec::SYSFS, "/sys");
    sys.set_read_only(true);
    AddShared(std::move(sys));
  }

  void AddAllocation() {
    AddOfAllocation(Bind(rootfs_.alloc_dir, "/alloc"));
    AddOfAllocation(ReadOnlyBind(rootfs_.logs_dir, "/alloc/logs"));
    AddOfAllocation(Bind(rootfs_.local_dir, "/local"));
    AddOfAllocation(Bind(rootfs_.secrets_dir, "/secrets"));
  }

  void AddRun() {
    Add(Tmpfs("/run", 0755, kRunBytes));
    pb::MountSpec own = Tmpfs(kRunDir, 02750, kRunBytes);
    own.set_gid(rootfs_.gid);
    own.set_host_owner(true);
    own.set_no_exec(true);
    Add(std::move(own));
    if (!rootfs_.jar_dir.empty()) Add(ReadOnlyBind(rootfs_.jar_dir, kJarDir));
  }

  // /var/tmp shares /tmp's size limit.
  void AddVar() {
    Add(Link("/run", "/var/run"));
    Add(Link("/tmp", "/var/tmp"));
  }

  void AddHome() {
    if (rootfs_.home.empty() || rootfs_.home == "/") return;
    for (const char* directory : kNoHomeBelow) {
      if (IsAtOrBelow(rootfs_.home, directory)) return;
    }
    pb::MountSpec home = Tmpfs(rootfs_.home, 0700, rootfs_.tmp_size_bytes);
    home.set_uid(rootfs_.uid);
    home.set_gid(rootfs_.gid);
    Add(std::move(home));
  }

  // At the end: a sandbox is built while its cgroups are made.
  void AddCgroups() {
    pb::MountSpec cgroup = Entry(pb::MountSpec::CGROUP, "/sys/fs/cgroup");
    cgroup.set_read_only(true);
    Add(std::move(cgroup));
  }

  std::vector<pb::MountSpec> Take() { return std::move(mounts_); }

 private:
  void Add(pb::MountSpec mount) { mounts_.push_back(std::move(mount)); }
  // Everybody in the allocation may write there: a link in place of alloc/logs would show the host.
  void AddOfAllocation(pb::MountSpec mount) {
    if (mount.source().empty()) return;
    const std::string base = fs::path(rootfs_.alloc_dir).parent_path().string();
    if (base.size() > 1 && IsAtOrBelow(mount.source(), base)) mount.set_base(base);
    Add(std::move(mount));
  }
  void AddShared(pb::MountSpec mount) {
    mount.set_shared(true);
    Add(std::move(mount));
  }

  std::string HostPath(const std::string& path) const { return prefix_ + path; }

  // A link into /usr stays one (merged-usr; the JVM reads the zone's name from the link
  // /etc/localtime). Other links, e.g. of NixOS into its store, are followed by the bind.
  void AddHostEntry(const std::string& path) {
    const HostEntry& entry = entries_->by_path.at(path);
    if (entry.kind == HostEntry::Kind::kMissing) return;
    const bool is_link = entry.kind == HostEntry::Kind::kLink;
    if (is_link) {
      const fs::path meant = (fs::path(path).parent_path() / entry.text).lexically_normal();
      if (IsAtOrBelow(meant.string(), "/usr")) return Add(Link(entry.text, path));
    }
    pb::MountSpec mount = ReadOnlyBind(HostPath(path), path);
    mount.set_optional(is_link);  // may dangle
    AddShared(std::move(mount));
  }

  void AddJavaSettings() {
    AddHostEntry(kHiddenJava);
    for (const std::string& name : entries_->etc) AddHostEntry("/etc/" + name);
  }

  // "" when the host has none.
  absl::StatusOr<std::string> HostFile(const std::string& path) const {
    absl::StatusOr<std::string> content = ReadFile(HostPath(path), kMaxEtcFile);
    if (absl::IsNotFound(content.status())) return std::string();
    return content;
  }

  absl::StatusOr<std::string> GivenOrHostFile(const std::optional<std::string>& given,
                                              const std::string& path) const {
    if (given.has_value()) return *given;
    return HostFile(path);
  }

  absl::Status AddAccounts() {
    ASSIGN_OR_RETURN(const std::string passwd, GivenOrHostFile(rootfs_.passwd, "/etc/passwd"));
    ASSIGN_OR_RETURN(const std::string group, GivenOrHostFile(rootfs_.group, "/etc/group"));
    const std::string home = rootfs_.home.empty() ? "/" : rootfs_.home;
    Add(File("/etc/passwd",
             PasswdWithUser(passwd, rootfs_.user_name, rootfs_.uid, rootfs_.gid, home)));
    Add(File("/etc/group", GroupWithGroup(group, rootfs_.user_name, rootfs_.gid)));
    return absl::OkStatus();
  }

  void AddResolver() {
    if (!rootfs_.resolv_conf_content.empty()) {
      return Add(File(kResolvConf, rootfs_.resolv_conf_content));
    }
    AddHostEntry(kResolvConf);
  }

  // Java's getLocalHost() throws when the host name has no address, so it gets one, as Debian does.
  absl::Status AddHosts() {
    std::string hosts = rootfs_.hosts_content;
    if (hosts.empty()) {
      ASSIGN_OR_RETURN(hosts, HostFile("/etc/hosts"));
      if (!hosts.empty() && hosts.back() != '\n') hosts += '\n';
      if (!rootfs_.hostname.empty()) absl::StrAppend(&hosts, "127.0.1.1 ", rootfs_.hostname, "\n");
    }
    Add(File("/etc/hosts", hosts + rootfs_.extra_hosts));
    if (!rootfs_.hostname.empty()) Add(File("/etc/hostname", rootfs_.hostname + "\n"));
    return absl::OkStatus();
  }

  const HostRootfs& rootfs_;
  const std::string prefix_;
  const std::shared_ptr<const HostEntries> entries_;
  std::vector<pb::MountSpec> mounts_;
};

absl::Status CheckPath(const std::string& path) {
  if (IsPlainAbsolute(path)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("'", path, "' is not a plain absolute path (no '//', '.', '..')"));
}

absl::Status CheckPaths(const HostRootfs& rootfs) {
  std::vector<std::string> paths = rootfs.extra_read_only;
  for (const std::string& path :
       {rootfs.alloc_dir, rootfs.logs_dir, rootfs.local_dir, rootfs.secrets_dir, rootfs.jar_dir}) {
    if (!path.empty()) paths.push_back(path);
  }
  for (const std::string& path : paths) {
    RETURN_IF_ERROR(CheckPath(path));
  }
  return absl::OkStatus();
}

// Of the host's account: it is made. An image's is whatever the image says.
absl::Status CheckHome(const std::string& home) {
  return home.empty() || home == "/" ? absl::OkStatus() : CheckPath(home);
}

// They become fields of passwd(5) and lines of hosts(5).
absl::Status CheckNames(const HostRootfs& rootfs) {
  for (const std::string& text : {rootfs.user_name, rootfs.home, rootfs.hostname}) {
    if (text.find_first_of(":\n") != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat("'", text, "' contains ':' or a line break"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

HostPlaces HostPlacesOf(const std::string& host_root) {
  HostPlaces places;
  places.root = Prefix(host_root);
  places.paths = {kJavaCertificates, kHiddenJava, kResolvConf};
  for (const char* path : kSystemTrees) places.paths.push_back(path);
  for (const char* name : kEtcEntries) places.paths.push_back(absl::StrCat("/etc/", name));
  places.etc_prefix = kJavaPrefix;
  return places;
}

absl::StatusOr<std::vector<pb::MountSpec>> PlanHostRootfs(const HostRootfs& rootfs) {
  RETURN_IF_ERROR(CheckPaths(rootfs));
  RETURN_IF_ERROR(CheckNames(rootfs));
  RETURN_IF_ERROR(CheckHome(rootfs.home));
  Plan plan(rootfs);
  RETURN_IF_ERROR(plan.AddSystemTrees(), "plan the root file system");
  RETURN_IF_ERROR(plan.AddEtc(), "plan /etc");
  plan.AddKernelTrees();
  plan.AddAllocation();
  plan.AddRun();
  plan.AddVar();
  plan.AddHome();
  plan.AddExtraTrees();
  plan.AddCgroups();
  return plan.Take();
}

absl::StatusOr<std::vector<pb::MountSpec>> PlanImageRootfs(const HostRootfs& rootfs) {
  RETURN_IF_ERROR(CheckPaths(rootfs));
  RETURN_IF_ERROR(CheckNames(rootfs));
  Plan plan(rootfs);
  RETURN_IF_ERROR(plan.AddEtcOfImage(), "plan /etc");
  plan.AddNodeJava();
  plan.AddKernelTrees();
  plan.AddAllocation();
  plan.AddRun();
  plan.AddCgroups();
  return plan.Take();
}

// As moby and runc, with moby's side-channel advisories GHSA-6fw5-f8r9-fgfm (powercap, interrupts)
// and GHSA-jq35-85cj-fj4p (thermal_throttle).
std::vector<std::string> DefaultMaskedPaths() {
  std::vector<std::string> paths = {
      "/proc/acpi",        "/proc/asound",  "/proc/interrupts",
      "/proc/kcore",       "/proc/keys",    "/proc/latency_stats",
      "/proc/sched_debug", "/proc/scsi",    "/proc/timer_list",
      "/proc/timer_stats", "/sys/firmware", "/sys/devices/virtual/powercap"};
  std::error_code error;
  for (int cpu = 0;; ++cpu) {  // numbered without gaps; an offline CPU keeps its directory
    const std::string directory = absl::StrCat("/sys/devices/system/cpu/cpu", cpu);
    if (!fs::exists(directory, error)) break;
    const std::string throttle = directory + "/thermal_throttle";
    if (fs::exists(throttle, error)) paths.push_back(throttle);
  }
  return paths;
}

std::vector<std::string> DefaultReadOnlyPaths() {
  return {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
}

}  // namespace jenkins_agent
