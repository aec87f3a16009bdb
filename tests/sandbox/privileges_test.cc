// What a payload may do, asked from inside a real sandbox.
#include "driver/sandbox/privileges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "driver/sandbox/seccomp.h"
#include "tests/sandbox/sandbox_run.h"
#include "tests/support/requires.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class PrivilegesTest : public testing::Test {
 protected:
  void SetUp() override { REQUIRES_ROOT(); }

  std::string Ask(const std::string& script) {
    const SandboxResult result = sandbox_.Shell(script);
    EXPECT_EQ(result.exit_code, 0) << script << "\n" << result.output;
    return result.output;
  }
  template <typename... Arguments>
  std::string Call(long number, Arguments... arguments) {
    return sandbox_.Probe({"syscall", absl::StrCat(number), absl::StrCat(arguments)...}).output;
  }

  TestSandbox sandbox_;
};

constexpr char kNoPermission[] = "errno=1\n";
constexpr char kNotImplemented[] = "errno=38\n";
constexpr char kAllowed[] = "ok\n";

// With a space between the columns whatever the kernel's padding.
constexpr char kStatus[] = "tr '\\t' ' ' < /proc/self/status | tr -s ' '";

TEST_F(PrivilegesTest, ThePayloadHasNone) {
  EXPECT_EQ(Ask("id -u; id -g; id -G; umask"), "64321\n64322\n64322\n0022\n");
  EXPECT_THAT(
      Ask(kStatus),
      AllOf(HasSubstr("CapInh: 0000000000000000\n"), HasSubstr("CapPrm: 0000000000000000\n"),
            HasSubstr("CapEff: 0000000000000000\n"), HasSubstr("CapBnd: 0000000000000000\n"),
            HasSubstr("CapAmb: 0000000000000000\n"), HasSubstr("NoNewPrivs: 1\n"),
            HasSubstr("Seccomp: 2\n")));
}

TEST_F(PrivilegesTest, NorHasRootInside) {
  sandbox_.user().set_uid(0);
  sandbox_.user().set_gid(0);
  EXPECT_THAT(Ask(kStatus),
              AllOf(HasSubstr("Uid: 0 0 0 0\n"), HasSubstr("CapEff: 0000000000000000\n"),
                    HasSubstr("CapPrm: 0000000000000000\n")));
}

TEST_F(PrivilegesTest, PidOneKeepsThreeCapabilities) {
  // KILL 5, SETGID 6, SETUID 7.
  EXPECT_THAT(
      Ask("tr '\\t' ' ' < /proc/1/status"),
      AllOf(HasSubstr("CapPrm: 00000000000000e0\n"), HasSubstr("CapEff: 00000000000000e0\n"),
            HasSubstr("CapInh: 0000000000000000\n"), HasSubstr("CapBnd: 0000000000000000\n"),
            HasSubstr("NoNewPrivs: 1\n"), HasSubstr("Seccomp: 2\n")));
}

TEST_F(PrivilegesTest, GivenCapabilitiesSurviveExec) {
  sandbox_.spec().add_capabilities(CAP_NET_RAW);
  sandbox_.spec().add_capabilities(CAP_CHOWN);
  sandbox_.spec().set_payload_filter(PayloadFilter({CAP_NET_RAW, CAP_CHOWN}));
  sandbox_.spec().set_init_filter(InitFilter({CAP_NET_RAW, CAP_CHOWN}));
  for (const uint32_t uid : {64321u, 0u}) {
    sandbox_.user().set_uid(uid);
    EXPECT_THAT(
        Ask(kStatus),
        AllOf(HasSubstr("CapPrm: 0000000000002001\n"), HasSubstr("CapEff: 0000000000002001\n"),
              HasSubstr("CapInh: 0000000000002001\n"), HasSubstr("CapBnd: 0000000000000000\n"),
              HasSubstr("NoNewPrivs: 1\n"), HasSubstr("Seccomp: 2\n")));
    EXPECT_EQ(Ask("touch /tmp/x && chown 7 /tmp/x && stat -c %u /tmp/x"), "7\n");
    EXPECT_EQ(Call(SYS_socket, AF_PACKET, SOCK_RAW, 0), kAllowed);
    EXPECT_EQ(Call(SYS_unshare, CLONE_NEWUSER), kNoPermission);
  }
}

TEST_F(PrivilegesTest, PidOneHoldsThemWithoutTheirEffect) {
  sandbox_.spec().add_capabilities(CAP_NET_RAW);
  EXPECT_THAT(Ask("tr '\\t' ' ' < /proc/1/status"), AllOf(HasSubstr("CapPrm: 00000000000020e0\n"),
                                                          HasSubstr("CapEff: 00000000000000e0\n"),
                                                          HasSubstr("CapBnd: 0000000000000000\n")));
}

TEST_F(PrivilegesTest, ACapabilityBringsItsCalls) {
  sandbox_.spec().add_capabilities(CAP_SYS_ADMIN);
  sandbox_.spec().set_payload_filter(PayloadFilter({CAP_SYS_ADMIN}));
  sandbox_.spec().set_init_filter(InitFilter({CAP_SYS_ADMIN}));
  EXPECT_EQ(Call(SYS_unshare, CLONE_NEWNS), kAllowed);
}

TEST_F(PrivilegesTest, APrivilegedOneHasNoFilter) {
  sandbox_.spec().set_payload_filter(OpenFilter());
  sandbox_.spec().set_init_filter(OpenFilter());
  EXPECT_EQ(Call(SYS_clone3, 0, 0), "errno=22\n");  // the kernel's own word
}

// Until its exec it has no more to lose than its filter; tests/vm has fs.suid_dumpable = 1.
TEST_F(PrivilegesTest, NobodyCanLookIntoAProcessOnItsWayToThePayload) {
  for (const uint32_t id : {64321u, 0u}) {
    pb::UserSpec user;
    user.set_uid(id);
    user.set_gid(id);
    pb::SandboxSpec spec;
    spec.set_payload_filter(PayloadFilter({}));
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::_exit(BecomePayload(user, spec).ok() ? ::prctl(PR_GET_DUMPABLE) : 100);
    }
    int status;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << id << ": " << status;
  }
}

TEST_F(PrivilegesTest, PidOneCannotBeTouched) {
  EXPECT_EQ(Call(SYS_kill, 1, SIGKILL), kNoPermission);
  constexpr int kPtraceSeize = 0x4206;
  EXPECT_EQ(Call(SYS_ptrace, kPtraceSeize, 1, 0, 0), kNoPermission);
  EXPECT_NE(sandbox_.Shell("cat /proc/1/environ").exit_code, 0);
  EXPECT_NE(sandbox_.Shell("ls /proc/1/root/").exit_code, 0);
}

TEST_F(PrivilegesTest, NoWayToNewNamespacesAndMounts) {
  EXPECT_EQ(Call(SYS_unshare, CLONE_NEWUSER), kNoPermission);
  EXPECT_EQ(Call(SYS_clone, CLONE_NEWUSER | SIGCHLD), kNoPermission);
  EXPECT_EQ(Call(SYS_mount, 0, 0, 0, 0, 0), kNoPermission);
  EXPECT_EQ(Call(SYS_keyctl, 0, -3, 0), kNoPermission);
  EXPECT_EQ(Call(SYS_bpf, 0, 0, 0), kNoPermission);
}

TEST_F(PrivilegesTest, UnknownCallsLookUnimplemented) {
  EXPECT_EQ(Call(999), kNotImplemented);
  EXPECT_EQ(Call(SYS_clone3, 0, 0), kNotImplemented);
}

TEST_F(PrivilegesTest, SocketFamilies) {
  EXPECT_EQ(Call(SYS_socket, AF_INET, SOCK_STREAM, 0), kAllowed);
  EXPECT_EQ(Call(SYS_socket, AF_ALG, SOCK_SEQPACKET, 0), kNoPermission);
  EXPECT_EQ(Call(SYS_socket, AF_PACKET, SOCK_RAW, 0), kNoPermission);
}

TEST_F(PrivilegesTest, TheOldEntryIsClosed) {
  EXPECT_EQ(sandbox_.Probe({"i386"}).exit_code, 128 + SIGSYS);
}

TEST_F(PrivilegesTest, SetUidProgramsGainNothing) {
  ASSERT_EQ(sandbox_.Probe({"euid"}).output, "euid=64321\n");
  const std::string copy = sandbox_.directory() + "/local/as-root";
  std::filesystem::copy_file(SANDBOX_PROBE, copy);
  ASSERT_EQ(::chmod(copy.c_str(), 04755), 0);
  EXPECT_EQ(sandbox_.Run({"/local/as-root", "euid"}).output, "euid=64321\n");
}

TEST_F(PrivilegesTest, LimitsHoldAndCoresAreNeverWritten) {
  auto limit = [this](uint32_t resource, uint64_t value) {
    pb::RlimitSpec& added = *sandbox_.spec().add_rlimits();
    added.set_resource(resource);
    added.set_soft(value);
    added.set_hard(value);
  };
  limit(RLIMIT_NOFILE, 123);
  limit(RLIMIT_CORE, 1 << 20);
  EXPECT_EQ(Ask("ulimit -n; ulimit -c; ulimit -H -c"), "123\n0\n0\n");
}

TEST_F(PrivilegesTest, AMissingFilterOpensNothing) {
  // Protobuf merges a set field only, so a damaged one stands for a missing one.
  sandbox_.spec().set_payload_filter("x");
  const SandboxResult result = sandbox_.Shell("true");
  EXPECT_EQ(result.exit_code, kSetupFailed);
  EXPECT_THAT(result.output, HasSubstr("filter is missing or damaged"));
}

}  // namespace
}  // namespace jenkins_agent
