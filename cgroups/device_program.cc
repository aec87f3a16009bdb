#include "cgroups/device_program.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>

#include "driver/base/fd.h"
#include "driver/base/status.h"

namespace jenkins_agent::cgroups {
namespace {

// Enough for one of ours and some of others; what is left over is found in the next round.
constexpr uint32_t kQueried = 16;
constexpr int kMaxRounds = 8;

// No helper of the kernel is called, so no licence is asked for (linux/bpf.h, gpl_compatible).
constexpr char kLicence[] = "Apache-2.0";

// Descriptors of bpf(2) are always CLOEXEC.
int Bpf(bpf_cmd command, bpf_attr& attributes) {
  return static_cast<int>(::syscall(SYS_bpf, command, &attributes, sizeof(attributes)));
}

absl::StatusOr<Fd> Load(const std::vector<bpf_insn>& program) {
  bpf_attr attributes = {};
  attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attributes.expected_attach_type = BPF_CGROUP_DEVICE;
  attributes.insns = reinterpret_cast<uintptr_t>(program.data());
  attributes.insn_cnt = static_cast<uint32_t>(program.size());
  attributes.license = reinterpret_cast<uintptr_t>(kLicence);
  Fd loaded(Bpf(BPF_PROG_LOAD, attributes));
  if (!loaded) return ErrnoStatus("load the device program");
  return loaded;
}

absl::Status Detach(int cgroup_fd, uint32_t id) {
  bpf_attr wanted = {};
  wanted.prog_id = id;
  const Fd program(Bpf(BPF_PROG_GET_FD_BY_ID, wanted));
  if (!program && errno == ENOENT) return absl::OkStatus();
  if (!program) return ErrnoStatus("open an earlier device program");
  bpf_attr attributes = {};
  attributes.target_fd = static_cast<uint32_t>(cgroup_fd);
  attributes.attach_bpf_fd = static_cast<uint32_t>(program.get());
  attributes.attach_type = BPF_CGROUP_DEVICE;
  if (Bpf(BPF_PROG_DETACH, attributes) != 0 && errno != ENOENT) {
    return ErrnoStatus("take an earlier device program away");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status AttachDeviceProgram(int cgroup_fd, const std::vector<bpf_insn>& program) {
  ASSIGN_OR_RETURN(const Fd loaded, Load(program));
  bpf_attr attributes = {};
  attributes.target_fd = static_cast<uint32_t>(cgroup_fd);
  attributes.attach_bpf_fd = static_cast<uint32_t>(loaded.get());
  attributes.attach_type = BPF_CGROUP_DEVICE;
  attributes.attach_flags = BPF_F_ALLOW_MULTI;
  if (Bpf(BPF_PROG_ATTACH, attributes) != 0) return ErrnoStatus("attach the device program");
  return absl::OkStatus();
}

absl::Status DetachDevicePrograms(int cgroup_fd) {
  for (int round = 0; round < kMaxRounds; ++round) {
    std::array<uint32_t, kQueried> ids = {};
    bpf_attr attributes = {};
    attributes.query.target_fd = static_cast<uint32_t>(cgroup_fd);
    attributes.query.attach_type = BPF_CGROUP_DEVICE;
    attributes.query.prog_ids = reinterpret_cast<uintptr_t>(ids.data());
    attributes.query.prog_cnt = kQueried;
    const int error = Bpf(BPF_PROG_QUERY, attributes) == 0 ? 0 : errno;
    if (error != 0 && error != ENOSPC) return absl::OkStatus();  // ENOSPC: there are more
    for (uint32_t i = 0; i < attributes.query.prog_cnt && i < kQueried; ++i) {
      RETURN_IF_ERROR(Detach(cgroup_fd, ids[i]));
    }
    if (error == 0) return absl::OkStatus();
  }
  return absl::ResourceExhaustedError("too many device programs of others");
}

}  // namespace jenkins_agent::cgroups
