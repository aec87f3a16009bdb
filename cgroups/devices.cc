#include "cgroups/devices.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"

namespace jenkins_agent::cgroups {
namespace {

// Registers of the program: R1 is the context at entry, R0 the answer at exit.
constexpr int kScratch = BPF_REG_1;
constexpr int kType = BPF_REG_2;
constexpr int kAccess = BPF_REG_3;
constexpr int kMajor = BPF_REG_4;
constexpr int kMinor = BPF_REG_5;

constexpr int32_t kAllAccess = BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE;

bpf_insn Instruction(int code, int to, int from, int16_t offset, int32_t value) {
  bpf_insn instruction = {};
  instruction.code = static_cast<uint8_t>(code);
  instruction.dst_reg = static_cast<uint8_t>(to) & 0xf;
  instruction.src_reg = static_cast<uint8_t>(from) & 0xf;
  instruction.off = offset;
  instruction.imm = value;
  return instruction;
}

bpf_insn Load(int to, size_t offset) {
  return Instruction(BPF_LDX | BPF_MEM | BPF_W, to, BPF_REG_1, static_cast<int16_t>(offset), 0);
}
bpf_insn Copy(int to, int from) { return Instruction(BPF_ALU | BPF_MOV | BPF_X, to, from, 0, 0); }
bpf_insn Calculate(int operation, int to, int32_t value) {
  return Instruction(BPF_ALU | operation | BPF_K, to, 0, 0, value);
}
// The distance is filled in when the end of the rule is known.
bpf_insn SkipRuleUnless(int reg, int32_t value) {
  return Instruction(BPF_JMP | BPF_JNE | BPF_K, reg, 0, 0, value);
}
bpf_insn SkipRuleUnlessEqual(int reg, int other) {
  return Instruction(BPF_JMP | BPF_JNE | BPF_X, reg, other, 0, 0);
}
// BPF_AND and BPF_JNE are the same number in their classes.
bool IsSkip(const bpf_insn& instruction) {
  return BPF_CLASS(instruction.code) == BPF_JMP && BPF_OP(instruction.code) == BPF_JNE;
}

void Answer(int32_t allowed, std::vector<bpf_insn>* program) {
  program->push_back(Calculate(BPF_MOV, BPF_REG_0, allowed));
  program->push_back(Instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
}

int32_t AccessBits(const std::string& access) {
  int32_t bits = 0;
  if (access.find('m') != std::string::npos) bits |= BPF_DEVCG_ACC_MKNOD;
  if (access.find('r') != std::string::npos) bits |= BPF_DEVCG_ACC_READ;
  if (access.find('w') != std::string::npos) bits |= BPF_DEVCG_ACC_WRITE;
  return bits;
}

std::vector<bpf_insn> RuleInstructions(const DeviceRule& rule) {
  std::vector<bpf_insn> block;
  if (rule.type != 'a') {
    block.push_back(
        SkipRuleUnless(kType, rule.type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR));
    if (rule.major != kAnyNumber) {
      block.push_back(SkipRuleUnless(kMajor, static_cast<int32_t>(rule.major)));
    }
    if (rule.minor != kAnyNumber) {
      block.push_back(SkipRuleUnless(kMinor, static_cast<int32_t>(rule.minor)));
    }
  }
  if (const int32_t allowed = AccessBits(rule.access); allowed != kAllAccess) {
    block.push_back(Copy(kScratch, kAccess));
    block.push_back(Calculate(BPF_AND, kScratch, allowed));
    block.push_back(SkipRuleUnlessEqual(kScratch, kAccess));
  }
  Answer(1, &block);
  for (size_t at = 0; at < block.size(); ++at) {
    if (IsSkip(block[at])) block[at].off = static_cast<int16_t>(block.size() - at - 1);
  }
  return block;
}

bool AllowsEverything(const DeviceRule& rule) {
  return rule.type == 'a' && AccessBits(rule.access) == kAllAccess;
}

std::string NumberText(int64_t number) { return number == kAnyNumber ? "*" : absl::StrCat(number); }

}  // namespace

std::vector<DeviceRule> StandardDevices() {
  return {
      {'c', kAnyNumber, kAnyNumber, "m"},
      {'b', kAnyNumber, kAnyNumber, "m"},
      {'c', 1, 3, "rwm"},             // null
      {'c', 1, 5, "rwm"},             // zero
      {'c', 1, 7, "rwm"},             // full
      {'c', 1, 8, "rwm"},             // random
      {'c', 1, 9, "rwm"},             // urandom
      {'c', 5, 0, "rwm"},             // tty
      {'c', 5, 1, "rwm"},             // console
      {'c', 5, 2, "rwm"},             // ptmx
      {'c', 136, kAnyNumber, "rwm"},  // terminals of devpts
  };
}

std::string DeviceLine(const DeviceRule& rule) {
  if (rule.type == 'a') return absl::StrCat("a *:* ", rule.access);
  return absl::StrCat(std::string(1, rule.type), " ", NumberText(rule.major), ":",
                      NumberText(rule.minor), " ", rule.access);
}

std::vector<bpf_insn> DeviceProgram(const std::vector<DeviceRule>& rules) {
  std::vector<bpf_insn> program;
  // The verifier refuses instructions that can never be reached: nothing follows a yes to all.
  if (std::any_of(rules.begin(), rules.end(), AllowsEverything)) {
    Answer(1, &program);
    return program;
  }
  // access_type is the kind of access in the upper half and the type in the lower one.
  program = {Load(kType, offsetof(bpf_cgroup_dev_ctx, access_type)),
             Load(kMajor, offsetof(bpf_cgroup_dev_ctx, major)),
             Load(kMinor, offsetof(bpf_cgroup_dev_ctx, minor)),
             Copy(kAccess, kType),
             Calculate(BPF_RSH, kAccess, 16),
             Calculate(BPF_AND, kType, 0xffff)};
  for (size_t i = 0; i < std::min(rules.size(), kMaxDeviceRules); ++i) {
    const std::vector<bpf_insn> block = RuleInstructions(rules[i]);
    program.insert(program.end(), block.begin(), block.end());
  }
  Answer(0, &program);
  return program;
}

}  // namespace jenkins_agent::cgroups
