// From "what happens to each system call number" to classic BPF for seccomp(2). Pure.
//
// The program is a binary search over ranges of numbers with the same answer: about 10 compares for
// any call. libseccomp's own programs are 2 to 10 times slower to load, because the kernel emulates
// a filter once per number when it loads it (measured 50-65 us against 120-880 us).
// Values only; thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace jenkins_agent {

// What the filter answers to one system call.
struct CallRule {
  enum class Kind {
    kAllow,
    kDeny,           // EPERM
    kMissing,        // ENOSYS, as a kernel without the call answers: libraries then fall back
    kAllowIfClear,   // allowed when (argument & values[0]) == 0, else EPERM
    kAllowIfOneOf,   // allowed when argument is one of values, else EPERM
    kAllowIfNoneOf,  // EPERM when argument is one of values, else allowed
  };
  Kind kind = Kind::kMissing;
  // Index and values of the argument looked at; only its low 32 bits are, as all arguments checked
  // here are 32 bits wide for the kernel.
  int argument = 0;
  std::vector<uint32_t> values;

  bool operator==(const CallRule&) const = default;
};

// Rules by number; numbers without a rule are kMissing. x32 calls are numbers above 2^30, so
// kMissing as well; any other architecture than x86-64 kills the process.
using CallRules = std::map<uint32_t, CallRule>;

// The program as the bytes of struct sock_filter[].
std::string EmitFilter(const CallRules& rules);

}  // namespace jenkins_agent
