// Every attempt of the program `escape` as the payload of a real task, once for each kind of
// payload; each attempt is a test.
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/sandbox/filter_program.h"
#include "driver/sandbox/seccomp.h"
#include "tests/escapes/cases.h"
#include "tests/supervisor/harness.h"
#include "tests/support/own_mounts.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

const auto* const kOwnMounts = testing::AddGlobalTestEnvironment(new OwnMounts);

namespace fs = std::filesystem;

// A kind of payload: its columns of the table, of which the first that says something counts, and
// how its task differs.
struct Variant {
  const char* name;
  std::vector<const char * Case::*> columns;
  void (*change)(pb::LaunchSpec&);
  bool on_image = false;  // else on the host's programs
};

void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

void AsIs(pb::LaunchSpec&) {}

void WithoutFilter(pb::LaunchSpec& spec) {
  CallRules rules;
  for (uint32_t number = 0; number < 1024; ++number)
    rules[number] = {CallRule::Kind::kAllow, 0, {}};
  spec.mutable_sandbox()->set_payload_filter(EmitFilter(rules));
  spec.mutable_sandbox()->set_init_filter(EmitFilter(rules));
}

void AsRoot(pb::LaunchSpec& spec) {
  spec.mutable_user()->set_uid(0);
  spec.mutable_user()->set_gid(0);
}

// docker's default set, which the operator may allow with allow_caps.
const std::set<uint32_t> kDockersCapabilities = {
    CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FSETID,  CAP_FOWNER,           CAP_MKNOD,
    CAP_SETGID, CAP_SETUID,       CAP_SETFCAP, CAP_NET_BIND_SERVICE, CAP_NET_RAW,
    CAP_KILL,   CAP_SYS_CHROOT,   CAP_SETPCAP, CAP_AUDIT_WRITE};

void WithDockersCapabilities(bool user_namespace, pb::LaunchSpec& spec) {
  pb::SandboxSpec& sandbox = *spec.mutable_sandbox();
  for (const uint32_t capability : kDockersCapabilities) sandbox.add_capabilities(capability);
  sandbox.set_payload_filter(PayloadFilter(kDockersCapabilities));
  sandbox.set_init_filter(InitFilter(kDockersCapabilities, user_namespace));
}

void AsRootWithCapabilities(pb::LaunchSpec& spec) {
  AsRoot(spec);
  WithDockersCapabilities(false, spec);
}

// userns = true, as PlanUserNamespace maps it.
void InUserNamespace(pb::LaunchSpec& spec) {
  pb::IdRange& range = *spec.mutable_user()->add_id_map();
  range.set_outside(0x6FFE0000);
  range.set_count(0x10000);
  spec.mutable_sandbox()->set_init_filter(InitFilter({}, true));
}

void AsRootInUserNamespace(pb::LaunchSpec& spec) {
  AsRoot(spec);
  InUserNamespace(spec);
}

void AsRootWithCapabilitiesInUserNamespace(pb::LaunchSpec& spec) {
  AsRootInUserNamespace(spec);
  WithDockersCapabilities(true, spec);
}

// A new network namespace, as Nomad makes one for a group; it lives as long as the descriptor.
Fd NewNetwork() {
  Fd network;
  // Of a thread only: the test itself stays in the host's.
  std::thread([&network] {
    EXPECT_EQ(::unshare(CLONE_NEWNET), 0);
    network = Fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  }).join();
  return network;
}

void InOwnNetwork(pb::LaunchSpec& spec) {
  static const Fd network = NewNetwork();
  spec.mutable_sandbox()->set_network_namespace(
      absl::StrCat("/proc/", ::getpid(), "/fd/", network.get()));
}

const Variant kPayload = {"payload", {&Case::payload}, AsIs};
const Variant kUnfiltered = {"unfiltered", {&Case::unfiltered, &Case::payload}, WithoutFilter};
const Variant kRoot = {"root", {&Case::root, &Case::payload}, AsRoot};
const Variant kRootWithCapabilities = {"root_with_capabilities",
                                       {&Case::capable, &Case::root, &Case::payload},
                                       AsRootWithCapabilities};
const Variant kUserNamespace = {"userns", {&Case::payload}, InUserNamespace};
const Variant kUserNamespaceRoot = {
    "userns_root", {&Case::userns_root, &Case::payload}, AsRootInUserNamespace};
const Variant kUserNamespaceCapabilities = {
    "userns_capabilities",
    {&Case::userns_capable, &Case::userns_root, &Case::payload},
    AsRootWithCapabilitiesInUserNamespace};
const Variant kOwnNetwork = {"own_network", {&Case::own_network, &Case::payload}, InOwnNetwork};
const Variant kImage = {"image", {&Case::image, &Case::payload}, AsIs, /*on_image=*/true};
const Variant kImageUserNamespace = {
    "image_userns", {&Case::image, &Case::payload}, InUserNamespace, /*on_image=*/true};
const Variant kImageUserNamespaceRoot = {"image_userns_root",
                                         {&Case::image_root, &Case::userns_root, &Case::payload},
                                         AsRootInUserNamespace,
                                         /*on_image=*/true};

std::string WordsOf(const Case& attempt, const Variant& variant) {
  for (const auto column : variant.columns) {
    if (const std::string words = attempt.*column; words != kSame) return words;
  }
  return kAny;
}

std::vector<Case> CasesOf(const Variant& variant) {
  std::vector<Case> cases;
  std::copy_if(std::begin(kCases), std::end(kCases), std::back_inserter(cases),
               [&](const Case& attempt) { return WordsOf(attempt, variant) != kAny; });
  return cases;
}

// ---- the host: what a payload might reach, and what must stay as it was ----

class Listener {
 public:
  Listener(int family, const void* address, socklen_t size)
      : fd_(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    EXPECT_EQ(::bind(fd_.get(), static_cast<const sockaddr*>(address), size), 0);
    EXPECT_EQ(::listen(fd_.get(), 16), 0);
  }
  int port() const {
    sockaddr_in own = {};
    socklen_t size = sizeof(own);
    ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&own), &size);
    return ntohs(own.sin_port);
  }

 private:
  Fd fd_;
};

Listener ListenOnLoopback() {
  sockaddr_in any_port = {};
  any_port.sin_family = AF_INET;
  any_port.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return Listener(AF_INET, &any_port, sizeof(any_port));
}

Listener ListenOnAbstract(const std::string& name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  return Listener(AF_UNIX, &address,
                  static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size()));
}

std::string FirstDisk() {
  for (const char* disk : {"/dev/vda", "/dev/sda", "/dev/nvme0n1"}) {
    if (PathExists(disk)) return disk;
  }
  return "/dev/vda";
}

// Nothing here changes by itself.
std::map<std::string, std::string> HostState() {
  std::map<std::string, std::string> state;
  for (const char* path : {"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname",
                           "/proc/sys/kernel/domainname", "/proc/sys/vm/overcommit_memory",
                           "/proc/sys/net/ipv4/ip_forward", "/proc/irq/default_smp_affinity",
                           "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/self/mountinfo",
                           "/proc/swaps", "/proc/modules", "/etc/passwd", JA_SUPERVISOR_PROGRAM}) {
    state[path] = ReadFile(path, 64 << 20).value_or("absent");
  }
  for (const char* directory : {"/", "/dev", "/etc", "/usr/bin"}) {
    for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
      struct stat found = {};
      if (::lstat(entry.path().c_str(), &found) != 0) continue;
      state[entry.path()] = absl::StrCat(found.st_mode, " ", found.st_uid, " ", found.st_gid);
    }
  }
  return state;
}

bool IsAbsentHere(const Case& attempt) {
  if (attempt.path != nullptr) return !PathExists(attempt.path);
  // Invalid arguments throughout: nothing happens when the call exists.
  if (attempt.call != 0) {
    return ::syscall(attempt.call, -1, -1, -1, -1, -1, -1) < 0 && errno == ENOSYS;
  }
  if (attempt.family == 0) return false;
  const Fd fd(::socket(attempt.family, SOCK_RAW | SOCK_CLOEXEC, 0));
  return !fd && errno == EAFNOSUPPORT;
}

// ---- one run answers all tests of a variant ----

using Words = std::map<std::string, std::string>;

class Escape : public SupervisorTest,
               public testing::WithParamInterface<std::tuple<Variant, Case>> {
 protected:
  void SetUp() override {
    if (FoundBefore() != nullptr) return;
    SupervisorTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    Words words;
    RunAll(std::get<Variant>(GetParam()), &words);
    Found()[std::get<Variant>(GetParam()).name] = words;
  }
  std::string Word() const {
    const auto found = FoundBefore()->find(std::get<Case>(GetParam()).name);
    return found == FoundBefore()->end() ? "not tried" : found->second;
  }

 private:
  static std::map<std::string, Words>& Found() {
    static std::map<std::string, Words> found;
    return found;
  }
  static const Words* FoundBefore() {
    const auto found = Found().find(std::get<Variant>(GetParam()).name);
    return found == Found().end() ? nullptr : &found->second;
  }

  // Files that the task could have from an artifact, with what it could not give them.
  void MakeProgramsWithPrivileges() {
    for (const char* name : {"escape", "set-uid", "capable"}) fs::copy_file(ESCAPE, Local(name));
    ASSERT_EQ(::chmod(Local("set-uid").c_str(), 06755), 0);
    // VFS_CAP_REVISION_2, effective; all permitted (capability.h).
    const uint32_t all[] = {0x02000001, ~0u, 0, 0x1ff, 0};
    ASSERT_EQ(::setxattr(Local("capable").c_str(), "security.capability", all, sizeof(all), 0), 0);
  }

  std::string Layer() const { return directory() + "/layer"; }
  // What the attempts look for.
  std::string MakeImage() {
    const std::string layer = Layer();
    fs::create_directories(layer + "/usr/bin");
    fs::create_directories(layer + "/usr/local");
    fs::copy_file(ESCAPE, layer + "/usr/bin/env");
    return layer;
  }

  // Other tasks run on it.
  void ExpectLayerAsMade() const {
    struct stat found = {}, made = {};
    ASSERT_EQ(::stat((Layer() + "/usr/bin/env").c_str(), &found), 0);
    ASSERT_EQ(::stat(ESCAPE, &made), 0);
    EXPECT_EQ(found.st_mode, made.st_mode);
    EXPECT_EQ(found.st_uid, made.st_uid);
    EXPECT_EQ(found.st_size, made.st_size);
    for (const char* made_by_tasks : {"/x", "/etc", "/usr/x", "/usr/local/x"}) {
      EXPECT_FALSE(fs::exists(Layer() + made_by_tasks)) << made_by_tasks;
    }
  }

  void RunAll(const Variant& variant, Words* words) {
    ASSERT_NO_FATAL_FAILURE(MakeProgramsWithPrivileges());
    ASSERT_OK(MakeDirs(directory() + "/alloc/logs"));
    const Listener tcp = ListenOnLoopback();
    const std::string abstract = absl::StrCat("ja-escape-", ::getpid());
    const Listener named = ListenOnAbstract(abstract);
    const std::vector<std::string> argv = {"/local/escape"};
    pb::LaunchSpec spec = variant.on_image ? OnImage(MakeImage(), argv) : Spec(argv);
    for (const std::string& told :
         {absl::StrCat("ESCAPE_HOST_PID=", ::getpid()), absl::StrCat("ESCAPE_PORT=", tcp.port()),
          "ESCAPE_ABSTRACT=" + abstract, "ESCAPE_TASK_DIR=" + TaskDir(),
          std::string("ESCAPE_HOST_FILE=") + ESCAPE, "ESCAPE_DISK=" + FirstDisk()}) {
      spec.mutable_program()->add_env(told);
    }
    pb::MountSpec& logs = *spec.mutable_sandbox()->add_mounts();
    logs.set_source(directory() + "/alloc/logs");
    logs.set_target("/alloc/logs");
    logs.set_read_only(true);
    variant.change(spec);

    const auto before = HostState();
    ASSERT_OK(Start(spec));
    const auto exit = watcher().WaitExit();
    ASSERT_TRUE(exit);
    // The payload came to its end, and pid 1 was there to tell.
    EXPECT_EQ(exit->exit_code(), 0) << exit->message();
    EXPECT_EQ(exit->message(), "");
    EXPECT_EQ(HostState(), before);
    if (variant.on_image) ExpectLayerAsMade();
    for (absl::string_view line : absl::StrSplit(Stdout(), '\n', absl::SkipEmpty())) {
      const std::pair<std::string, std::string> word =
          absl::StrSplit(line, absl::MaxSplits(' ', 1));
      words->insert(word);
    }
    EXPECT_EQ(words->size(), std::size(kCases)) << "an attempt without a test, or a test without";
  }
};

TEST_P(Escape, Attempt) {
  if (IsSkipped()) return;
  const auto& [variant, attempt] = GetParam();
  const std::vector<std::string> safe = absl::StrSplit(WordsOf(attempt, variant), '|');
  EXPECT_THAT(safe, testing::Contains(Word()));
}

std::string NameOf(const testing::TestParamInfo<Escape::ParamType>& info) {
  return std::get<Case>(info.param).name;
}

// One line each.
#define ESCAPES_OF(variant)                                                                  \
  INSTANTIATE_TEST_SUITE_P(                                                                  \
      variant, Escape,                                                                       \
      testing::Combine(testing::Values(k##variant), testing::ValuesIn(CasesOf(k##variant))), \
      NameOf)
ESCAPES_OF(Payload);
ESCAPES_OF(Unfiltered);
ESCAPES_OF(Root);
ESCAPES_OF(RootWithCapabilities);
ESCAPES_OF(UserNamespace);
ESCAPES_OF(UserNamespaceRoot);
ESCAPES_OF(UserNamespaceCapabilities);
ESCAPES_OF(OwnNetwork);
ESCAPES_OF(Image);
ESCAPES_OF(ImageUserNamespace);
ESCAPES_OF(ImageUserNamespaceRoot);

// Refused as all the others, but here there was nothing to refuse.
TEST(EscapeCoverage, WhatThisHostLacks) {
  std::vector<std::string> absent;
  for (const Case& attempt : kCases) {
    if (IsAbsentHere(attempt)) absent.push_back(attempt.name);
  }
  if (!absent.empty()) {
    GTEST_SKIP() << absent.size() << " of " << std::size(kCases)
                 << " attempts prove nothing on this host: " << absl::StrJoin(absent, " ");
  }
}

}  // namespace
}  // namespace jenkins_agent
