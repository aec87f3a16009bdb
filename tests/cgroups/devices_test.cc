// The device program, run by a small interpreter of the few instructions that it uses; the kernel
// runs it in v2_kernel_test.cc.
#include "cgroups/devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>

namespace jenkins_agent::cgroups {
namespace {

constexpr uint32_t kMknod = BPF_DEVCG_ACC_MKNOD;
constexpr uint32_t kRead = BPF_DEVCG_ACC_READ;
constexpr uint32_t kWrite = BPF_DEVCG_ACC_WRITE;

bool Allows(const std::vector<bpf_insn>& program, char type, uint32_t access, uint32_t major,
            uint32_t minor) {
  const uint32_t kind = type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR;
  const bpf_cgroup_dev_ctx context = {(access << 16) | kind, major, minor};
  std::array<uint64_t, 11> registers = {};
  for (size_t at = 0; at < program.size(); ++at) {
    const bpf_insn& now = program[at];
    uint64_t& to = registers[now.dst_reg];
    const uint64_t with =
        (now.code & BPF_X) != 0 ? registers[now.src_reg] : static_cast<uint64_t>(int64_t{now.imm});
    switch (BPF_CLASS(now.code)) {
      case BPF_LDX: {
        uint32_t word;
        std::memcpy(&word, reinterpret_cast<const char*>(&context) + now.off, sizeof(word));
        to = word;
        break;
      }
      case BPF_ALU:
        if (BPF_OP(now.code) == BPF_MOV) to = static_cast<uint32_t>(with);
        if (BPF_OP(now.code) == BPF_AND) to = static_cast<uint32_t>(to & with);
        if (BPF_OP(now.code) == BPF_RSH) to = static_cast<uint32_t>(to) >> with;
        break;
      case BPF_JMP:
        if (BPF_OP(now.code) == BPF_EXIT) return registers[BPF_REG_0] != 0;
        if (BPF_OP(now.code) == BPF_JNE && to != with) at += now.off;
        break;
    }
  }
  ADD_FAILURE() << "the program has no end";
  return false;
}

TEST(Devices, NothingIsAllowedByDefault) {
  const std::vector<bpf_insn> program = DeviceProgram({});
  EXPECT_FALSE(Allows(program, 'c', kRead, 1, 3));
  EXPECT_FALSE(Allows(program, 'b', kMknod, 8, 0));
}

TEST(Devices, TheStandardListIsDockers) {
  const std::vector<bpf_insn> program = DeviceProgram(StandardDevices());
  for (const uint32_t minor : {3, 5, 7, 8, 9}) {
    EXPECT_TRUE(Allows(program, 'c', kRead | kWrite, 1, minor)) << minor;
  }
  EXPECT_TRUE(Allows(program, 'c', kRead | kWrite, 136, 77));
  EXPECT_TRUE(Allows(program, 'b', kMknod, 8, 0));
  EXPECT_FALSE(Allows(program, 'b', kRead, 8, 0));
  EXPECT_FALSE(Allows(program, 'b', kMknod | kRead, 8, 0));
  EXPECT_FALSE(Allows(program, 'c', kRead, 1, 1));    // mem
  EXPECT_FALSE(Allows(program, 'c', kWrite, 1, 11));  // kmsg
}

TEST(Devices, ARuleHasTypeNumbersAndAccess) {
  const std::vector<bpf_insn> program =
      DeviceProgram({{'b', 8, kAnyNumber, "r"}, {'c', 10, 229, "rw"}});
  EXPECT_TRUE(Allows(program, 'b', kRead, 8, 17));
  EXPECT_FALSE(Allows(program, 'b', kWrite, 8, 17));
  EXPECT_FALSE(Allows(program, 'b', kRead | kWrite, 8, 17));
  EXPECT_FALSE(Allows(program, 'c', kRead, 8, 17));
  EXPECT_FALSE(Allows(program, 'b', kRead, 9, 17));
  EXPECT_TRUE(Allows(program, 'c', kRead | kWrite, 10, 229));
  EXPECT_FALSE(Allows(program, 'c', kMknod, 10, 229));
  EXPECT_FALSE(Allows(program, 'c', kRead, 10, 228));
}

TEST(Devices, AllMayBeAllowed) {
  const std::vector<bpf_insn> program =
      DeviceProgram({{'c', 1, 3, "r"}, {'a', kAnyNumber, kAnyNumber, "rwm"}});
  EXPECT_TRUE(Allows(program, 'b', kRead | kWrite | kMknod, 253, 12));
  EXPECT_EQ(program.size(), 2u);  // the verifier refuses what cannot be reached
  EXPECT_TRUE(Allows(DeviceProgram({{'a', kAnyNumber, kAnyNumber, "r"}}), 'b', kRead, 8, 0));
  EXPECT_FALSE(Allows(DeviceProgram({{'a', kAnyNumber, kAnyNumber, "r"}}), 'b', kWrite, 8, 0));
}

TEST(Devices, LinesAreThoseOfV1) {
  EXPECT_EQ(DeviceLine({'c', 1, 3, "rwm"}), "c 1:3 rwm");
  EXPECT_EQ(DeviceLine({'b', kAnyNumber, kAnyNumber, "m"}), "b *:* m");
  EXPECT_EQ(DeviceLine({'a', 1, 3, "rwm"}), "a *:* rwm");
}

}  // namespace
}  // namespace jenkins_agent::cgroups
