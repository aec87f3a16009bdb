#include "driver/tools/host_checks.h"

#include <dlfcn.h>
#include <sys/sysinfo.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/paths.h"
#include "driver/base/subprocess.h"
#include "driver/task/host_load.h"
#include "driver/task/state_dir.h"
#include "driver/tools/plugin_owner.h"

namespace jenkins_agent {
namespace {

// Debian 12's; the design's floor.
constexpr int kLeastMajor = 6;
constexpr int kLeastMinor = 1;

std::string ControllerOrEmpty(const cgroups::Hierarchy& hierarchy, const char* controller) {
  return hierarchy.Has(controller) ? "" : controller;
}

std::vector<std::string> MissingControllers(const cgroups::Hierarchy& hierarchy) {
  std::vector<const char*> wanted = {"cpu", "cpuset", "memory", "pids"};
  if (hierarchy.version() == cgroups::Version::kV1) wanted.push_back("freezer");
  std::vector<std::string> missing;
  for (const char* controller : wanted) {
    std::string name = ControllerOrEmpty(hierarchy, controller);
    if (!name.empty()) missing.push_back(std::move(name));
  }
  return missing;
}

// v2 always does where swap accounting is on; v1 has a file for it (cgroup-v1/memory.rst).
bool CountsSwap(const cgroups::Hierarchy& hierarchy) {
  if (hierarchy.version() != cgroups::Version::kV1) return true;
  return ::access(absl::StrCat(hierarchy.ControllerPath("memory"), "/memory.memsw.usage_in_bytes")
                      .c_str(),
                  F_OK) == 0;
}

std::optional<uint64_t> SwapBytes() {
  struct sysinfo info = {};
  if (::sysinfo(&info) != 0) return std::nullopt;
  return static_cast<uint64_t>(info.totalswap) * info.mem_unit;
}

bool ClockSynchronised() {
  timex state = {};  // modes 0: only asked (adjtimex(2))
  return ::adjtimex(&state) != TIME_ERROR;
}

std::map<std::string, std::string> NomadsUnit() {
  constexpr char kSystemctl[] = "/usr/bin/systemctl";
  if (::access("/run/systemd/system", F_OK) != 0 || ::access(kSystemctl, X_OK) != 0) return {};
  RunOptions options;
  options.timeout = std::chrono::seconds(10);
  const auto shown = Run({kSystemctl, "show", "nomad.service", "--property",
                          "LoadState,KillMode,OOMScoreAdjust,TasksMax"},
                         options);
  if (!shown.ok() || shown->exit.exit_code != 0) return {};
  std::map<std::string, std::string> unit = ParseProperties(shown->output);
  return unit["LoadState"] == "loaded" ? unit : std::map<std::string, std::string>();
}

std::vector<std::string> MissingLibraries() {
  std::vector<std::string> missing;
  for (const char* name : {"libprometheus-cpp-pull.so.1.0", "libisal.so.2"}) {
    void* library = ::dlopen(name, RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) {
      missing.push_back(name);
    } else {
      ::dlclose(library);
    }
  }
  return missing;
}

Finding CheckKernel(const HostView& view) {
  const std::vector<std::string> numbers = absl::StrSplit(view.kernel, absl::ByAnyChar(".-+"));
  int major = 0;
  int minor = 0;
  const bool known = numbers.size() >= 2 && absl::SimpleAtoi(numbers[0], &major) &&
                     absl::SimpleAtoi(numbers[1], &minor);
  const std::string found = absl::StrCat("Linux ", view.kernel, " on ", view.machine);
  if (view.machine != "x86_64") return Fail("kernel", found, "use a machine with amd64");
  if (known && (major > kLeastMajor || (major == kLeastMajor && minor >= kLeastMinor))) {
    return Ok("kernel", found);
  }
  return Fail("kernel", found, "Linux 6.1 or newer is needed, such as Debian 12's");
}

Finding CheckCgroups(const HostView& view) {
  if (view.cgroups == cgroups::Version::kNone) {
    return Fail("cgroups", "no cgroups are mounted at /sys/fs/cgroup",
                "mount them as systemd does; in a container give it the host's");
  }
  const std::string mode = view.cgroups == cgroups::Version::kV1 ? "v1" : "v2";
  if (view.missing_controllers.empty())
    return Ok("cgroups", absl::StrCat(mode, ", all controllers"));
  return Fail("cgroups",
              absl::StrCat(mode, " without the controllers ",
                           absl::StrJoin(view.missing_controllers, ", ")),
              "enable them: kernel command line (cgroup_enable=), or cgroup.subtree_control");
}

Finding CheckSwap(const HostView& view) {
  if (!view.swap_bytes.has_value()) return Warn("swap", "not known", "look at /proc/swaps");
  if (*view.swap_bytes == 0) return Ok("swap", "none");
  if (view.counts_swap) return Ok("swap", "in use by the host; a task never swaps");
  return Warn("swap", "tasks may swap: the memory controller does not count swap",
              "boot with swapaccount=1, or switch swap off");
}

Finding CheckJava(const HostView& view) {
  if (view.javas.empty()) {
    return Warn("java", "no JDK found: only agents on images that have Java run here",
                "install one, such as openjdk-17-jre-headless, or set java_homes");
  }
  std::vector<std::string> texts;
  for (const JavaInstall& java : view.javas) {
    texts.push_back(absl::StrCat(java.version, " (", java.path, ")"));
  }
  return Ok("java", absl::StrJoin(texts, ", "));
}

Finding CheckStateDir(const HostView& view) {
  if (!view.state_dir_error.empty()) {
    return Fail("state directory", absl::StrCat(view.state_dir, " ", view.state_dir_error),
                "make room or mount it read-write, or set the plugin's state_dir");
  }
  return Ok(
      "state directory",
      absl::StrCat(view.state_dir, view.plugin.has_value()
                                       ? absl::StrCat(", of the plugin with pid ", *view.plugin)
                                       : ", no plugin runs with it"));
}

void CheckUnit(const HostView& view, Findings& findings) {
  if (view.unit.empty()) return;
  const auto value = [&view](const char* key) {
    const auto it = view.unit.find(key);
    return it == view.unit.end() ? std::string() : it->second;
  };
  if (value("KillMode") == "process") {
    findings.push_back(Ok("nomad.service", "KillMode=process: agents outlive a restart of Nomad"));
  } else {
    findings.push_back(
        Fail("nomad.service",
             absl::StrCat("KillMode=", value("KillMode"), ": a restart of Nomad kills every agent"),
             "systemctl edit nomad: [Service] KillMode=process"));
  }
  if (value("TasksMax") == "infinity") {
    findings.push_back(Ok("nomad.service limits", "TasksMax=infinity"));
  } else {
    findings.push_back(Warn("nomad.service limits",
                            absl::StrCat("TasksMax=", value("TasksMax"),
                                         ": supervisors and their helpers count against it"),
                            "systemctl edit nomad: [Service] TasksMax=infinity"));
  }
}

const char* UseOf(const std::string& library) {
  return absl::StrContains(library, "prometheus")
             ? "metrics are not served; install libprometheus-cpp-pull1.0 if you want them"
             : "images are unpacked at half the speed; install libisal2";
}

}  // namespace

std::map<std::string, std::string> ParseProperties(absl::string_view text) {
  std::map<std::string, std::string> properties;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(line, absl::MaxSplits('=', 1));
    properties.insert(parts);
  }
  return properties;
}

HostView LookAtHost(const std::string& state_dir, const std::vector<std::string>& java_homes) {
  HostView view;
  view.root = ::geteuid() == 0;
  utsname name = {};
  if (::uname(&name) == 0) {
    view.kernel = name.release;
    view.machine = name.machine;
  }
  if (const auto hierarchy = cgroups::Hierarchy::Detect(); hierarchy.ok()) {
    view.cgroups = hierarchy->version();
    view.missing_controllers = MissingControllers(*hierarchy);
    view.counts_swap = CountsSwap(*hierarchy);
  }
  view.swap_bytes = SwapBytes();
  view.clock_synchronised = ClockSynchronised();
  view.javas = FindJavaHomes(java_homes).value_or(std::vector<JavaInstall>());
  view.state_dir = state_dir;
  view.state_dir_error = StateDirTrouble(state_dir);
  view.plugin = PluginOwner(StatePaths(state_dir));
  if (const auto load = ReadHostLoad(); load.ok()) {
    view.load_error = std::string(CheckHostLoad(*load, 0).message());
  }
  view.unit = NomadsUnit();
  view.missing_libraries = MissingLibraries();
  return view;
}

Findings CheckHost(const HostView& view) {
  Findings findings;
  findings.push_back(view.root ? Ok("root", "this runs as root, as the plugin has to")
                               : Fail("root", "this does not run as root",
                                      "run doctor, and the Nomad client, as root"));
  findings.push_back(CheckKernel(view));
  findings.push_back(CheckCgroups(view));
  findings.push_back(CheckSwap(view));
  findings.push_back(view.load_error.empty()
                         ? Ok("room", "threads and memory for one more agent")
                         : Fail("room", view.load_error, "stop something, or raise the limit"));
  findings.push_back(CheckStateDir(view));
  findings.push_back(CheckJava(view));
  findings.push_back(view.clock_synchronised
                         ? Ok("clock", "synchronised")
                         : Warn("clock", "not synchronised: TLS and Nomad's own times need it",
                                "run a time service, such as systemd-timesyncd"));
  CheckUnit(view, findings);
  for (const std::string& library : view.missing_libraries) {
    findings.push_back(Warn("library", absl::StrCat(library, " is not installed"), UseOf(library)));
  }
  return findings;
}

}  // namespace jenkins_agent
