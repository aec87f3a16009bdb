#include "driver/sandbox/filter_program.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

namespace jenkins_agent {
namespace {

using Program = std::vector<sock_filter>;

// One range of numbers, up to the next range's `first`.
struct Range {
  uint32_t first;
  CallRule rule;
};

sock_filter Load(size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}
sock_filter JumpIfEqual(uint32_t value, uint8_t yes, uint8_t no) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no);
}
sock_filter Return(uint32_t action) { return BPF_STMT(BPF_RET | BPF_K, action); }
sock_filter ReturnErrno(int error) {
  return Return(SECCOMP_RET_ERRNO | (static_cast<uint32_t>(error) & SECCOMP_RET_DATA));
}

// Little endian: the low half of an argument comes first.
size_t LowHalfOf(int argument) {
  return offsetof(seccomp_data, args) + sizeof(uint64_t) * static_cast<size_t>(argument);
}

// Jumps to the last instruction of a leaf when the loaded value is one of `values`.
void AppendMembership(const std::vector<uint32_t>& values, Program& program) {
  for (size_t i = 0; i < values.size(); ++i) {
    program.push_back(JumpIfEqual(values[i], static_cast<uint8_t>(values.size() - i), 0));
  }
}

// The end of a search: decides about the number found.
Program Leaf(const CallRule& rule) {
  const sock_filter allow = Return(SECCOMP_RET_ALLOW);
  const sock_filter deny = ReturnErrno(EPERM);
  Program leaf;
  switch (rule.kind) {
    case CallRule::Kind::kAllow:
      return {allow};
    case CallRule::Kind::kDeny:
      return {deny};
    case CallRule::Kind::kMissing:
      return {ReturnErrno(ENOSYS)};
    case CallRule::Kind::kAllowIfClear:
      return {Load(LowHalfOf(rule.argument)),
              BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, rule.values.at(0), 1, 0), allow, deny};
    case CallRule::Kind::kAllowIfOneOf:
      leaf.push_back(Load(LowHalfOf(rule.argument)));
      AppendMembership(rule.values, leaf);
      leaf.insert(leaf.end(), {deny, allow});
      return leaf;
    case CallRule::Kind::kAllowIfNoneOf:
      leaf.push_back(Load(LowHalfOf(rule.argument)));
      AppendMembership(rule.values, leaf);
      leaf.insert(leaf.end(), {allow, deny});
      return leaf;
  }
  return {deny};
}

std::vector<Range> MergeRanges(const CallRules& rules) {
  std::vector<Range> ranges = {{0, CallRule{}}};
  auto start = [&ranges](uint32_t first, const CallRule& rule) {
    if (ranges.back().rule == rule) return;
    if (ranges.back().first == first) {
      ranges.back().rule = rule;
    } else {
      ranges.push_back({first, rule});
    }
  };
  uint32_t next = 0;
  for (const auto& [number, rule] : rules) {
    if (number != next) start(next, CallRule{});
    start(number, rule);
    next = number + 1;
  }
  start(next, CallRule{});
  return ranges;
}

// Binary search over ranges[begin, end): the lower half follows the compare, then the upper half.
Program Search(const std::vector<Range>& ranges, size_t begin, size_t end) {
  if (end - begin == 1) return Leaf(ranges[begin].rule);
  const size_t middle = begin + (end - begin) / 2;
  const Program lower = Search(ranges, begin, middle);
  const Program upper = Search(ranges, middle, end);
  const uint32_t bound = ranges[middle].first;
  const auto skip = static_cast<uint32_t>(lower.size());
  Program program;
  if (skip <= UINT8_MAX) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, bound, static_cast<uint8_t>(skip), 0));
  } else {  // conditional jumps reach 255 instructions, BPF_JA any distance
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, bound, 0, 1));
    program.push_back(BPF_STMT(BPF_JMP | BPF_JA, skip));
  }
  program.insert(program.end(), lower.begin(), lower.end());
  program.insert(program.end(), upper.begin(), upper.end());
  return program;
}

}  // namespace

std::string EmitFilter(const CallRules& rules) {
  const std::vector<Range> ranges = MergeRanges(rules);
  Program program = {Load(offsetof(seccomp_data, arch)), JumpIfEqual(AUDIT_ARCH_X86_64, 1, 0),
                     Return(SECCOMP_RET_KILL_PROCESS), Load(offsetof(seccomp_data, nr))};
  const Program search = Search(ranges, 0, ranges.size());
  program.insert(program.end(), search.begin(), search.end());
  return std::string(reinterpret_cast<const char*>(program.data()),
                     program.size() * sizeof(sock_filter));
}

}  // namespace jenkins_agent
