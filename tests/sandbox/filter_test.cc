// The emitted programs, run by a small BPF interpreter, against the rules they came from and
// against what libseccomp makes of the same rules.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "driver/sandbox/filter_program.h"
#include "driver/sandbox/seccomp.h"

namespace jenkins_agent {
namespace {

constexpr uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr uint32_t kPermission = SECCOMP_RET_ERRNO | EPERM;
constexpr uint32_t kMissing = SECCOMP_RET_ERRNO | ENOSYS;
constexpr uint32_t kMalformed = 0xdeadbeef;
constexpr uint32_t kLastNumber = 1023;    // Linux 6.18 ends at 469
constexpr uint32_t kX32Bit = 0x40000000;  // __X32_SYSCALL_BIT

std::vector<sock_filter> Decode(const std::string& bytes) {
  std::vector<sock_filter> program(bytes.size() / sizeof(sock_filter));
  memcpy(program.data(), bytes.data(), program.size() * sizeof(sock_filter));
  return program;
}

// The subset of classic BPF that seccomp filters use; kMalformed for anything else.
uint32_t Evaluate(const std::vector<sock_filter>& program, const seccomp_data& data) {
  uint32_t accumulator = 0;
  for (size_t at = 0; at < program.size(); ++at) {
    const sock_filter& op = program[at];
    auto jump = [&](bool taken) { at += taken ? op.jt : op.jf; };
    switch (op.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        if (op.k % 4 != 0 || op.k + 4 > sizeof(data)) return kMalformed;
        memcpy(&accumulator, reinterpret_cast<const char*>(&data) + op.k, 4);
        break;
      case BPF_JMP | BPF_JA:
        at += op.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        jump(accumulator == op.k);
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        jump(accumulator >= op.k);
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
        jump(accumulator > op.k);
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        jump((accumulator & op.k) != 0);
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        accumulator &= op.k;
        break;
      case BPF_RET | BPF_K:
        return op.k;
      default:
        return kMalformed;
    }
  }
  return kMalformed;
}

seccomp_data Call(uint32_t number, uint64_t argument0 = 0, uint64_t argument1 = 0) {
  seccomp_data data = {};
  data.nr = static_cast<int>(number);
  data.arch = AUDIT_ARCH_X86_64;
  data.args[0] = argument0;
  data.args[1] = argument1;
  return data;
}

bool IsConditional(const CallRule& rule) { return rule.kind >= CallRule::Kind::kAllowIfClear; }

uint32_t Expected(const CallRule& rule) {
  switch (rule.kind) {
    case CallRule::Kind::kAllow:
      return kAllow;
    case CallRule::Kind::kMissing:
      return kMissing;
    default:
      return kPermission;
  }
}

CallRule RuleOf(const CallRules& rules, uint32_t number) {
  const auto found = rules.find(number);
  return found == rules.end() ? CallRule{} : found->second;
}

TEST(Filter, EveryNumberGetsItsRule) {
  const CallRules rules = PayloadCallRules();
  const std::vector<sock_filter> program = Decode(PayloadFilter());
  for (uint32_t number = 0; number <= kLastNumber; ++number) {
    const CallRule rule = RuleOf(rules, number);
    if (IsConditional(rule)) continue;
    EXPECT_EQ(Evaluate(program, Call(number)), Expected(rule)) << number;
  }
  EXPECT_EQ(Evaluate(program, Call(0xffffffff)), kMissing);
}

// A program of libseccomp, for x86-64 only as ours.
class Oracle {
 public:
  explicit Oracle(uint32_t default_action) : context_(seccomp_init(default_action)) {
    EXPECT_EQ(seccomp_attr_set(context_, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS), 0);
  }
  ~Oracle() { seccomp_release(context_); }
  Oracle(const Oracle&) = delete;
  Oracle& operator=(const Oracle&) = delete;

  void Add(uint32_t action, uint32_t number, const std::vector<scmp_arg_cmp>& comparisons = {}) {
    EXPECT_EQ(
        seccomp_rule_add_exact_array(context_, action, static_cast<int>(number),
                                     static_cast<unsigned>(comparisons.size()), comparisons.data()),
        0)
        << number;
  }
  std::vector<sock_filter> Program() const {
    const int fd = ::memfd_create("oracle", MFD_CLOEXEC);
    EXPECT_EQ(seccomp_export_bpf(context_, fd), 0);
    std::string bytes(static_cast<size_t>(::lseek(fd, 0, SEEK_END)), '\0');
    EXPECT_EQ(::pread(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    ::close(fd);
    return Decode(bytes);
  }

 private:
  const scmp_filter_ctx context_;
};

// For libseccomp a call that matches none of its rules gets the default action. So the rules that
// look at arguments need programs with other defaults than the rest.
struct Oracles {
  std::vector<sock_filter> fixed;          // else ENOSYS
  std::vector<sock_filter> allow_if;       // else EPERM
  std::vector<sock_filter> allow_if_none;  // else allowed

  uint32_t Decide(const CallRule& rule, const seccomp_data& data) const {
    if (!IsConditional(rule)) return Evaluate(fixed, data);
    return Evaluate(rule.kind == CallRule::Kind::kAllowIfNoneOf ? allow_if_none : allow_if, data);
  }
};

scmp_arg_cmp LowHalf(const CallRule& rule, uint32_t mask, uint32_t value) {
  return {static_cast<unsigned>(rule.argument), SCMP_CMP_MASKED_EQ, mask, value};
}

Oracles MakeOracles(const CallRules& rules) {
  Oracle fixed(SCMP_ACT_ERRNO(ENOSYS));
  Oracle allow_if(SCMP_ACT_ERRNO(EPERM));
  Oracle allow_if_none(SCMP_ACT_ALLOW);
  for (const auto& [number, rule] : rules) {
    switch (rule.kind) {
      case CallRule::Kind::kMissing:
        break;
      case CallRule::Kind::kAllow:
        fixed.Add(SCMP_ACT_ALLOW, number);
        break;
      case CallRule::Kind::kDeny:
        fixed.Add(SCMP_ACT_ERRNO(EPERM), number);
        break;
      case CallRule::Kind::kAllowIfClear:
        allow_if.Add(SCMP_ACT_ALLOW, number, {LowHalf(rule, rule.values.at(0), 0)});
        break;
      case CallRule::Kind::kAllowIfOneOf:
        for (const uint32_t value : rule.values) {
          allow_if.Add(SCMP_ACT_ALLOW, number, {LowHalf(rule, ~0u, value)});
        }
        break;
      case CallRule::Kind::kAllowIfNoneOf:
        for (const uint32_t value : rule.values) {
          allow_if_none.Add(SCMP_ACT_ERRNO(EPERM), number, {LowHalf(rule, ~0u, value)});
        }
        break;
    }
  }
  return {fixed.Program(), allow_if.Program(), allow_if_none.Program()};
}

// Each bit of an argument, what the rule names and its neighbours, with and without a high half.
std::vector<uint64_t> ArgumentsFor(const CallRule& rule) {
  if (!IsConditional(rule)) return {0, 1, ~uint64_t{0}};
  std::vector<uint64_t> arguments;
  for (uint64_t value = 0; value < 256; ++value) arguments.push_back(value);
  for (int bit = 8; bit < 64; ++bit) arguments.push_back(uint64_t{1} << bit);
  for (const uint64_t value : rule.values) {
    for (const uint64_t near : {value - 1, value, value + 1}) {
      for (const uint64_t high : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}}) {
        arguments.push_back((high << 32) | (near & 0xffffffff));
      }
    }
  }
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000; ++i) arguments.push_back(random());
  return arguments;
}

// pid 1's filter is the payload's but for clone3 (into a cgroup, v2) and, with `userns`, entering
// user namespaces.
CallRules InitCallRules(const std::set<uint32_t>& capabilities, bool userns) {
  CallRules rules = PayloadCallRules(capabilities);
  rules[SYS_clone3] = {CallRule::Kind::kAllow, 0, {}};
  if (userns) rules[SYS_setns] = {CallRule::Kind::kAllowIfOneOf, 1, {CLONE_NEWUSER}};
  return rules;
}

struct Emitted {
  const char* name;
  CallRules rules;
  std::string filter;
};
void PrintTo(const Emitted& emitted, std::ostream* out) { *out << emitted.name; }

class EveryFilter : public ::testing::TestWithParam<Emitted> {};

TEST_P(EveryFilter, LibseccompDecidesTheSame) {
  const CallRules& rules = GetParam().rules;
  const Oracles oracles = MakeOracles(rules);
  const std::vector<sock_filter> program = Decode(GetParam().filter);
  int refused = 0;
  for (uint32_t number = 0; number <= kLastNumber; ++number) {
    const CallRule rule = RuleOf(rules, number);
    for (const uint64_t argument : ArgumentsFor(rule)) {
      seccomp_data data = Call(number);
      data.args[rule.argument] = argument;
      ASSERT_EQ(Evaluate(program, data), oracles.Decide(rule, data)) << number << " " << argument;
      refused += IsConditional(rule) && Evaluate(program, data) == kPermission;
    }
  }
  EXPECT_GT(refused, 1000);  // the arguments meet both sides of the rules
}

const std::set<uint32_t> kSome = {CAP_NET_RAW, CAP_SYS_CHROOT, CAP_SYS_TIME};
const std::set<uint32_t> kAdmin = {CAP_SYS_ADMIN};

INSTANTIATE_TEST_SUITE_P(
    Emitted, EveryFilter,
    ::testing::Values(
        Emitted{"Payload", PayloadCallRules(), PayloadFilter()},
        Emitted{"PayloadSome", PayloadCallRules(kSome), PayloadFilter(kSome)},
        Emitted{"PayloadAdmin", PayloadCallRules(kAdmin), PayloadFilter(kAdmin)},
        Emitted{"Init", InitCallRules({}, false), InitFilter()},
        Emitted{"InitUserns", InitCallRules({}, true), InitFilter({}, true)},
        Emitted{"InitSomeUserns", InitCallRules(kSome, true), InitFilter(kSome, true)},
        // setns is open already.
        Emitted{"InitAdminUserns", InitCallRules(kAdmin, false), InitFilter(kAdmin, true)}),
    [](const auto& which) { return which.param.name; });

// No rule looks at two arguments, so the others must not matter.
TEST(Filter, OnlyTheArgumentOfTheRuleCounts) {
  const CallRules rules = PayloadCallRules();
  const std::vector<sock_filter> program = Decode(PayloadFilter());
  for (const auto& [number, rule] : rules) {
    for (int other = 0; other < 6; ++other) {
      if (IsConditional(rule) && other == rule.argument) continue;
      seccomp_data data = Call(number);
      const uint32_t before = Evaluate(program, data);
      data.args[other] = ~uint64_t{0};
      data.instruction_pointer = ~uint64_t{0};
      EXPECT_EQ(Evaluate(program, data), before) << number << " argument " << other;
    }
  }
}

// A call that libseccomp can name has been looked at, or the kernel itself has none any more.
TEST(Filter, NoKnownCallIsForgotten) {
  const std::set<std::string> obsolete = {
      "uselib",        "ustat",           "sysfs",          "_sysctl",
      "create_module", "get_kernel_syms", "query_module",   "nfsservctl",
      "getpmsg",       "putpmsg",         "afs_syscall",    "tuxcall",
      "security",      "epoll_ctl_old",   "epoll_wait_old", "vserver"};
  const CallRules rules = PayloadCallRules();
  for (int number = 0; number <= static_cast<int>(kLastNumber); ++number) {
    char* name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, number);
    if (name == nullptr) continue;
    EXPECT_TRUE(rules.count(static_cast<uint32_t>(number)) == 1 || obsolete.count(name) == 1)
        << name;
    ::free(name);
  }
}

// libseccomp kills for x32 as well; "missing" lets a program that only probes live.
TEST(Filter, ForeignArchitecturesAreClosedForEveryNumber) {
  const CallRules rules = PayloadCallRules();
  const Oracles oracles = MakeOracles(rules);
  const std::vector<sock_filter> program = Decode(PayloadFilter());
  for (uint32_t number = 0; number <= kLastNumber; ++number) {
    const CallRule rule = RuleOf(rules, number);
    const seccomp_data x32 = Call(kX32Bit | number);
    EXPECT_EQ(Evaluate(program, x32), kMissing) << number;
    EXPECT_EQ(oracles.Decide(rule, x32), SECCOMP_RET_KILL_PROCESS) << number;
    for (const uint32_t arch : {uint32_t{AUDIT_ARCH_I386}, uint32_t{AUDIT_ARCH_AARCH64}, 0u}) {
      seccomp_data foreign = Call(number);
      foreign.arch = arch;
      EXPECT_EQ(Evaluate(program, foreign), SECCOMP_RET_KILL_PROCESS) << number;
      EXPECT_EQ(oracles.Decide(rule, foreign), SECCOMP_RET_KILL_PROCESS) << number;
    }
  }
}

TEST(Filter, ThreadsAreAllowedNamespacesAreNot) {
  const std::vector<sock_filter> program = Decode(PayloadFilter());
  EXPECT_EQ(Evaluate(program, Call(SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND)), kAllow);
  for (const uint64_t flag : {CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWUTS,
                              CLONE_NEWIPC, CLONE_NEWCGROUP}) {
    EXPECT_EQ(Evaluate(program, Call(SYS_clone, flag | CLONE_VM)), kPermission) << flag;
  }
  EXPECT_EQ(Evaluate(program, Call(SYS_clone3)), kMissing);
  EXPECT_EQ(Evaluate(program, Call(SYS_unshare, CLONE_NEWUSER)), kPermission);
}

TEST(Filter, OnlyCommonSocketFamilies) {
  const std::vector<sock_filter> program = Decode(PayloadFilter());
  for (const int family : {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK}) {
    EXPECT_EQ(Evaluate(program, Call(SYS_socket, family)), kAllow) << family;
  }
  for (const int family : {AF_UNSPEC, AF_PACKET, AF_ALG, AF_VSOCK, AF_BLUETOOTH, 9, 11, 99}) {
    EXPECT_EQ(Evaluate(program, Call(SYS_socket, family)), kPermission) << family;
  }
  // The kernel looks at the low half only, so must the filter.
  EXPECT_EQ(Evaluate(program, Call(SYS_socket, (uint64_t{1} << 32) | AF_ALG)), kPermission);
}

TEST(Filter, TerminalsPersonalitiesListeners) {
  const std::vector<sock_filter> program = Decode(PayloadFilter());
  EXPECT_EQ(Evaluate(program, Call(SYS_ioctl, 0, TIOCSTI)), kPermission);
  EXPECT_EQ(Evaluate(program, Call(SYS_ioctl, 0, (uint64_t{7} << 32) | TIOCSTI)), kPermission);
  EXPECT_EQ(Evaluate(program, Call(SYS_ioctl, 0, TIOCLINUX)), kPermission);
  EXPECT_EQ(Evaluate(program, Call(SYS_ioctl, 0, FIONREAD)), kAllow);
  EXPECT_EQ(Evaluate(program, Call(SYS_personality, 0xffffffff)), kAllow);
  EXPECT_EQ(Evaluate(program, Call(SYS_personality, 0x0400000)), kPermission);  // READ_IMPLIES_EXEC
  EXPECT_EQ(Evaluate(program, Call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0)), kAllow);
  EXPECT_EQ(Evaluate(program,
                     Call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER)),
            kPermission);
}

TEST(Filter, WhatThePayloadMayThePidOneFilterMayToo) {
  const std::vector<sock_filter> payload = Decode(PayloadFilter());
  const std::vector<sock_filter> init = Decode(InitFilter());
  for (uint32_t number = 0; number <= kLastNumber; ++number) {
    if (Evaluate(payload, Call(number, 1)) != kAllow) continue;
    EXPECT_EQ(Evaluate(init, Call(number, 1)), kAllow) << number;
  }
}

TEST(Filter, CapabilitiesOpenOnlyWhatTheyAreFor) {
  const CallRules usual = PayloadCallRules();
  const CallRules more = PayloadCallRules({CAP_SYS_CHROOT, CAP_SYS_TIME});
  std::set<uint32_t> changed;
  for (const auto& [number, rule] : more) {
    if (!(RuleOf(usual, number) == rule)) changed.insert(number);
  }
  EXPECT_EQ(changed, (std::set<uint32_t>{SYS_chroot, SYS_settimeofday, SYS_clock_settime}));
  EXPECT_EQ(usual.size(), more.size());
}

TEST(Filter, APrivilegedTasksRefusesNothing) {
  const std::vector<sock_filter> program = Decode(OpenFilter());
  for (const uint32_t number : {0u, static_cast<uint32_t>(SYS_bpf), 999u}) {
    EXPECT_EQ(Evaluate(program, Call(number)), kAllow);
  }
}

TEST(Filter, StaysSmall) { EXPECT_LE(Decode(PayloadFilter()).size(), 256u); }

TEST(EmitFilter, LongJumpsReachTheirTarget) {
  CallRules rules;
  for (uint32_t number = 0; number < 2000; number += 2) {
    rules[number] = {CallRule::Kind::kAllow, 0, {}};
  }
  const std::vector<sock_filter> program = Decode(EmitFilter(rules));
  for (uint32_t number = 0; number < 2010; ++number) {
    const bool allowed = number % 2 == 0 && number < 2000;
    ASSERT_EQ(Evaluate(program, Call(number)), allowed ? kAllow : kMissing) << number;
  }
}

TEST(EmitFilter, NoRulesMeansNoCalls) {
  EXPECT_EQ(Evaluate(Decode(EmitFilter({})), Call(SYS_read)), kMissing);
}

}  // namespace
}  // namespace jenkins_agent
