// A foreign judge: `runtimetest` of the OCI's runtime-tools is the payload of a real task and
// compares the sandbox from inside with the config.json that describes it.
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/file.h"
#include "driver/sandbox/seccomp.h"
#include "tests/judge/oci_config.h"
#include "tests/supervisor/harness.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLeastAssertions = 280;  // of a run that came to its end

using Reasons = std::map<std::string, std::string>;  // by the assertion's name

// ---- what the judge says (Test Anything Protocol) ----

struct Verdict {
  std::string name;
  bool good;
  bool skipped;
};

// The number in "mounts[7] (/usr)" depends on the host's /etc.
std::string WithoutNumber(absl::string_view name) {
  if (!absl::StartsWith(name, "mounts[")) return std::string(name);
  return absl::StrCat("mounts", name.substr(name.find(']') + 1));
}

// "ok 7 - has expected user ID", "ok 8 # SKIP hostname not set", "not ok 9 - ...".
std::vector<Verdict> Verdicts(const std::string& output) {
  std::vector<Verdict> verdicts;
  for (absl::string_view line : absl::StrSplit(output, '\n')) {
    const bool bad = absl::ConsumePrefix(&line, "not ");
    if (!absl::ConsumePrefix(&line, "ok ")) continue;
    line.remove_prefix(line.find(' ') + 1);
    const bool skipped = absl::ConsumePrefix(&line, "# SKIP ");
    absl::ConsumePrefix(&line, "- ");
    verdicts.push_back({WithoutNumber(line), !bad, skipped});
  }
  return verdicts;
}

// ---- the tasks ----

void AsRootWithCapabilities(pb::LaunchSpec& spec) {
  spec.mutable_user()->set_uid(0);
  spec.mutable_user()->set_gid(0);
  // docker's default set.
  const std::set<uint32_t> capabilities = {
      CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FSETID,  CAP_FOWNER,           CAP_MKNOD,
      CAP_SETGID, CAP_SETUID,       CAP_SETFCAP, CAP_NET_BIND_SERVICE, CAP_NET_RAW,
      CAP_KILL,   CAP_SYS_CHROOT,   CAP_SETPCAP, CAP_AUDIT_WRITE};
  for (const uint32_t capability : capabilities) {
    spec.mutable_sandbox()->add_capabilities(capability);
  }
  spec.mutable_sandbox()->set_payload_filter(PayloadFilter(capabilities));
  spec.mutable_sandbox()->set_init_filter(InitFilter(capabilities));
}

void InAUserNamespace(pb::LaunchSpec& spec) {
  pb::IdRange& range = *spec.mutable_user()->add_id_map();
  range.set_inside(0);
  range.set_outside(0x6FFE0000);  // of nobody, see driver/task/plan_privileges.cc
  range.set_count(65536);
  spec.mutable_sandbox()->set_init_filter(InitFilter({}, true));
}

void SetLimit(int resource, uint64_t soft, uint64_t hard, pb::LaunchSpec& spec) {
  pb::RlimitSpec& limit = *spec.mutable_sandbox()->add_rlimits();
  limit.set_resource(resource);
  limit.set_soft(soft);
  limit.set_hard(hard);
}

// What jobs and Nomad may add to a sandbox.
void WithAllThatAJobMayAdd(const std::string& directory, pb::LaunchSpec& spec) {
  spec.mutable_user()->add_groups(20002);
  spec.mutable_user()->add_groups(20003);
  spec.mutable_program()->add_env("NOMAD_TASK_DIR=/local");
  // Soft and hard are the same: Go raises its own soft limit before the judge looks.
  SetLimit(RLIMIT_NOFILE, 4096, 4096, spec);
  SetLimit(RLIMIT_NPROC, 1000, 2000, spec);
  SetLimit(RLIMIT_FSIZE, 1 << 30, RLIM_INFINITY, spec);
  spec.mutable_sandbox()->set_own_network(true);
  for (pb::MountSpec& mount : *spec.mutable_sandbox()->mutable_mounts()) {
    if (mount.kind() != pb::MountSpec::DEV) continue;
    pb::DeviceSpec& device = *mount.add_devices();
    device.set_path("bus/first");
    device.set_major_number(189);
    device.set_mode(0640);
    device.set_uid(spec.user().uid());
    device.set_gid(spec.user().gid());
  }
  pb::MountSpec& volume = *spec.mutable_sandbox()->add_mounts();
  volume.set_source(directory + "/alloc/data");
  volume.set_target("/data");
  volume.set_read_only(true);
  pb::MountSpec& scratch = *spec.mutable_sandbox()->add_mounts();
  scratch.set_kind(pb::MountSpec::TMPFS);
  scratch.set_target("/scratch");
  scratch.set_no_exec(true);
}

// ---- what the judge leaves open or takes for a fault, and why ----

Reasons NotAsked(const pb::LaunchSpec& spec) {
  Reasons reasons = {
      {"linux.rootfsPropagation not set", "asking makes the judge write to /, which is read-only"},
      {"linux.sysctl not set", "the driver sets none"},
      {"linux.mountlabel not set", "the driver has no SELinux labels"},
      {"process.ApparmorProfile not set", "the driver has no AppArmor profile"}};
  if (spec.user().id_map().empty()) {
    reasons["linux.uidMappings not set"] = "no user namespace";
    reasons["linux.gidMappings not set"] = "no user namespace";
  }
  for (const char* device : {"null", "zero", "full", "random", "urandom", "tty", "ptmx"}) {
    const std::string name = absl::StrCat("/dev/", device, " (default device) has ");
    const char* reason = "the judge has no expectation of its own; linux.devices says it";
    reasons[name + "unconfigured permissions"] = reason;
    reasons[name + "an unconfigured user ID"] = reason;
    reasons[name + "an unconfigured group ID"] = reason;
  }
  return reasons;
}

// Since Linux 6.8 (fs/namespace.c: a namespace's mounts are a tree by id) mountinfo has mounts in
// the order in which they were made; the judge takes it for that in which they were attached.
bool MountsAreListedAsMade() {
  utsname kernel = {};
  ::uname(&kernel);
  int major = 0;
  int minor = 0;
  EXPECT_EQ(std::sscanf(kernel.release, "%d.%d", &major, &minor), 2);
  return major > 6 || (major == 6 && minor >= 8);
}

// A sandbox's mounts are made in three orders (root.h): copies of binds, those of the template,
// then the task's own file systems.
bool IsMisjudged(const Verdict& verdict) {
  static const bool listed_as_made = MountsAreListedAsMade();
  return listed_as_made && absl::StartsWith(verdict.name, "mounts (") &&
         absl::EndsWith(verdict.name, ") found in order");
}

struct Task {
  const char* name;
  void (*change)(pb::LaunchSpec&);
  bool with_all = false;
};

void PrintTo(const Task& task, std::ostream* out) { *out << task.name; }

class Judge : public SupervisorTest {
 protected:
  void SetUp() override {
    if (!PathExists(JUDGE_PROGRAM)) GTEST_SKIP() << "no judge: run tests/judge/build";
    SupervisorTest::SetUp();
  }

  pb::LaunchSpec Plan(const Task& task) {
    EXPECT_OK(MakeDirs(directory() + "/alloc/data"));
    pb::LaunchSpec spec = Spec({"/local/runtimetest"});
    task.change(spec);
    if (task.with_all) WithAllThatAJobMayAdd(directory(), spec);
    return spec;
  }

  // Runs to its end; what it says is in Stdout().
  void Run(const pb::LaunchSpec& spec, const nlohmann::json& config) {
    fs::copy_file(JUDGE_PROGRAM, Local("runtimetest"));
    ASSERT_OK_AND_ASSIGN(const Fd file, OpenFile(Local("config.json"), O_CREAT | O_WRONLY, 0644));
    ASSERT_OK(WriteAll(file.get(), config.dump(1)));
    ASSERT_OK(Start(spec));
    const auto exit = watcher().WaitExit();
    ASSERT_TRUE(exit);
    ASSERT_EQ(exit->exit_code(), 0) << Stderr();
  }
};

class EveryKind : public Judge, public testing::WithParamInterface<Task> {};

TEST_P(EveryKind, IsAsPlanned) {
  const pb::LaunchSpec spec = Plan(GetParam());
  ASSERT_NO_FATAL_FAILURE(Run(spec, OciConfig(spec)));
  const std::vector<Verdict> verdicts = Verdicts(Stdout());
  Reasons not_asked = NotAsked(spec);
  size_t good = 0;
  for (const Verdict& verdict : verdicts) {
    if (verdict.skipped) {
      EXPECT_EQ(not_asked.erase(verdict.name), 1u) << "not asked: " << verdict.name;
    } else if (!verdict.good) {
      EXPECT_TRUE(IsMisjudged(verdict)) << "not ok: " << verdict.name;
    } else {
      ++good;
    }
  }
  EXPECT_THAT(not_asked, testing::IsEmpty()) << "asked now";
  EXPECT_GE(good, kLeastAssertions);
  EXPECT_THAT(Stdout(), testing::HasSubstr(absl::StrCat("\n1..", verdicts.size())));
  RecordProperty("ok", static_cast<int>(good));
  if (HasFailure()) std::cerr << OciConfig(spec).dump(1) << "\n" << Stdout();
}

INSTANTIATE_TEST_SUITE_P(Sandbox, EveryKind,
                         testing::Values(Task{"Usual", [](pb::LaunchSpec&) {}},
                                         Task{"WithAllThatAJobMayAdd", [](pb::LaunchSpec&) {},
                                              true},
                                         Task{"RootWithCapabilities", AsRootWithCapabilities},
                                         Task{"UserNamespace", InAUserNamespace, true}),
                         [](const auto& task) { return task.param.name; });

// What its "ok" is worth: it sees each lie, and nothing else.
TEST_F(Judge, SeesWhatIsNotAsPlanned) {
  const pb::LaunchSpec spec = Plan({"Usual", [](pb::LaunchSpec&) {}});
  nlohmann::json config = OciConfig(spec);
  config["hostname"] = "other";
  config["process"]["user"]["uid"] = 7;
  config["process"]["noNewPrivileges"] = false;
  config["process"]["oomScoreAdj"] = 5;
  config["process"]["rlimits"][0]["hard"] = 1;
  config["process"]["capabilities"]["ambient"] = {"CAP_KILL"};
  config["mounts"].push_back({{"destination", "/absent"}});
  config["linux"]["maskedPaths"] = {"/etc/passwd"};
  config["linux"]["readonlyPaths"] = {"/local"};
  config["linux"]["devices"][0]["fileMode"] = 0600;
  ASSERT_NO_FATAL_FAILURE(Run(spec, config));
  std::vector<std::string> seen;
  for (const Verdict& verdict : Verdicts(Stdout())) {
    if (!verdict.good && !IsMisjudged(verdict)) seen.push_back(verdict.name);
  }
  EXPECT_THAT(seen, testing::UnorderedElementsAre(
                        "has expected hostname", "has expected user ID",
                        "has expected noNewPrivileges", "has expected OOM score adjustment",
                        "has expected hard RLIMIT_CORE", "expected ambient capability CAP_KILL set",
                        "mounts (/absent) found", "cannot read masked path \"/etc/passwd\"",
                        "\"/local\" (linux.readonlyPaths[0]) is not writable",
                        "\"/dev/null\" (linux.devices[0]) has the expected permissions"));
}

}  // namespace
}  // namespace jenkins_agent
