#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/reboot.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstring>

#include "tests/helpers/escape.h"

namespace jenkins_agent::escape {
namespace {

// All pointers are invalid, so that a kernel which gets that far does nothing.
std::string Call(long number) { return Answer(::syscall(number, -1, -1, -1, -1, -1, -1)); }

std::string MakeBpfMap() {
  bpf_attr map = {};
  map.map_type = BPF_MAP_TYPE_ARRAY;
  map.key_size = 4;
  map.value_size = 4;
  map.max_entries = 1;
  return Answer(::syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof(map)));
}

std::string OpenPerfEvent() {
  perf_event_attr event = {};
  event.size = sizeof(event);
  event.type = PERF_TYPE_SOFTWARE;
  event.config = PERF_COUNT_SW_CPU_CLOCK;
  return Answer(::syscall(SYS_perf_event_open, &event, -1, 0, -1, 0));  // the whole first CPU
}

std::string SetClock() {
  timespec now = {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return Answer(::clock_settime(CLOCK_REALTIME, &now));
}

std::string AdjustClock() {
  timex adjust = {};
  if (::adjtimex(&adjust) < 0) return "unreadable";
  adjust.modes = ADJ_FREQUENCY;  // to what it is
  return Answer(::adjtimex(&adjust));
}

std::string SetHostname() {
  char name[65] = {};
  ::gethostname(name, sizeof(name) - 1);
  return Answer(::sethostname(name, ::strlen(name)));
}

// getpid and socketcall by the 32-bit entry, whose numbers mean other calls.
std::string I386(long number) {
  long result = number;
  asm volatile("int $0x80" : "+a"(result) : "b"(0L), "c"(0L) : "memory");
  return result >= 0 ? "done" : ErrnoName(static_cast<int>(-result));
}

// All numbers that x86-64 may give out next.
std::string UnknownCalls() {
  for (long number = 500; number < 1024; ++number) {
    if (::syscall(number, -1, -1, -1, -1, -1, -1) >= 0 || errno != ENOSYS) {
      return std::to_string(number) + "=" + ErrnoName(errno);
    }
  }
  return "ENOSYS";
}

// statmount, listmount, open_tree_attr, ...: newer than the kernel that the filter was made for.
std::string CallsNewerThanTheFilter() {
  for (long number = 457; number < 500; ++number) {
    if (::syscall(number, -1, -1, -1, -1, -1, -1) >= 0 || errno != ENOSYS) {
      return std::to_string(number) + "=" + ErrnoName(errno);
    }
  }
  return "ENOSYS";
}

std::string RaiseCoreLimit() {
  const rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
  return Answer(::setrlimit(RLIMIT_CORE, &unlimited));
}

std::string DumpCore() {
  const pid_t child = ::fork();
  if (child == 0) ::abort();
  int status = 0;
  ::waitpid(child, &status, 0);
  return WCOREDUMP(status) ? "dumped" : "no-core";
}

}  // namespace

Attempts KernelAttempts() {
  return {
      {"WriteCorePattern", [] { return Open("/proc/sys/kernel/core_pattern", O_WRONLY); }},
      {"WriteOvercommit", [] { return Open("/proc/sys/vm/overcommit_memory", O_WRONLY); }},
      {"WriteIpForward", [] { return Open("/proc/sys/net/ipv4/ip_forward", O_WRONLY); }},
      {"WriteModprobe", [] { return Open("/proc/sys/kernel/modprobe", O_WRONLY); }},
      {"WriteHostnameSysctl", [] { return Open("/proc/sys/kernel/hostname", O_WRONLY); }},
      {"WriteSysrq", [] { return Open("/proc/sys/kernel/sysrq", O_WRONLY); }},
      {"WriteSysrqTrigger", [] { return Open("/proc/sysrq-trigger", O_WRONLY); }},
      {"RegisterBinfmt", [] { return Open("/proc/sys/fs/binfmt_misc/register", O_WRONLY); }},
      {"WriteIrqAffinity", [] { return Open("/proc/irq/default_smp_affinity", O_WRONLY); }},
      {"ReadKcore", [] { return Read("/proc/kcore"); }},
      {"ReadKeys", [] { return Read("/proc/keys"); }},
      {"ReadTimerList", [] { return Read("/proc/timer_list"); }},
      {"ReadInterrupts", [] { return Read("/proc/interrupts"); }},
      {"ReadSchedDebug", [] { return Read("/proc/sched_debug"); }},
      {"ReadLatencyStats", [] { return Read("/proc/latency_stats"); }},
      {"ListAcpi", [] { return List("/proc/acpi"); }},
      {"ListScsi", [] { return List("/proc/scsi"); }},
      {"ListFirmware", [] { return List("/sys/firmware"); }},
      {"ListPowercap", [] { return List("/sys/devices/virtual/powercap"); }},
      {"ListThermalThrottle", [] { return List("/sys/devices/system/cpu/cpu0/thermal_throttle"); }},
      {"ListDebugfs", [] { return List("/sys/kernel/debug"); }},
      {"ListTracefs", [] { return List("/sys/kernel/tracing"); }},
      {"ListSecurityfs", [] { return List("/sys/kernel/security"); }},
      {"ListEfivars", [] { return List("/sys/firmware/efi/efivars"); }},
      {"ReadProcKmsg", [] { return Read("/proc/kmsg"); }},
      {"ReadVmallocinfo", [] { return Read("/proc/vmallocinfo"); }},
      {"OpenKpagecount", [] { return Open("/proc/kpagecount", O_RDONLY); }},
      {"WriteProfiling", [] { return Open("/sys/kernel/profiling", O_WRONLY); }},
      {"WriteUeventHelper", [] { return Open("/sys/kernel/uevent_helper", O_WRONLY); }},
      {"WritePowerState", [] { return Open("/sys/power/state", O_WRONLY); }},
      {"WriteHugePages",
       [] { return Open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY); }},
      {"WriteCpuOnline", [] { return Open("/sys/devices/system/cpu/cpu1/online", O_WRONLY); }},
      {"WriteModuleParameter", [] { return Open("/sys/module/printk/parameters/time", O_WRONLY); }},
      {"Keyctl",
       [] {
         return Answer(::syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
       }},
      {"AddKey",
       [] {
         return Answer(::syscall(SYS_add_key, "user", "escape", "x", 1, KEY_SPEC_PROCESS_KEYRING));
       }},
      {"RequestKey",
       [] { return Answer(::syscall(SYS_request_key, "user", "escape", nullptr, 0)); }},
      {"Bpf", MakeBpfMap},
      {"PerfEventOpen", OpenPerfEvent},
      {"Userfaultfd", [] { return Answer(::syscall(SYS_userfaultfd, O_CLOEXEC)); }},
      {"IoUringSetup", [] { return Call(SYS_io_uring_setup); }},
      {"IoUringEnter", [] { return Call(SYS_io_uring_enter); }},
      {"IoUringRegister", [] { return Call(SYS_io_uring_register); }},
      {"InitModule", [] { return Call(SYS_init_module); }},
      {"FinitModule", [] { return Call(SYS_finit_module); }},
      {"DeleteModule", [] { return Call(SYS_delete_module); }},
      {"KexecLoad", [] { return Call(SYS_kexec_load); }},
      {"KexecFileLoad", [] { return Call(SYS_kexec_file_load); }},
      {"Reboot",
       [] {
         return Answer(::syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
                                 LINUX_REBOOT_CMD_CAD_OFF, nullptr));
       }},
      {"Iopl", [] { return Answer(::syscall(SYS_iopl, 3)); }},
      {"Ioperm", [] { return Answer(::syscall(SYS_ioperm, 0x80, 1, 1)); }},
      {"ModifyLdt", [] { return Call(SYS_modify_ldt); }},
      {"Swapon", [] { return Call(SYS_swapon); }},
      {"Swapoff", [] { return Call(SYS_swapoff); }},
      {"Acct", [] { return Call(SYS_acct); }},
      {"Quotactl", [] { return Call(SYS_quotactl); }},
      {"Settimeofday", [] { return Call(SYS_settimeofday); }},
      {"ClockSettime", SetClock},
      {"Adjtimex", AdjustClock},
      {"Sethostname", SetHostname},
      {"Setdomainname", [] { return Answer(::setdomainname("", 0)); }},
      {"Vhangup", [] { return Answer(::vhangup()); }},
      {"FanotifyInit", [] { return Answer(::syscall(SYS_fanotify_init, 0, 0)); }},
      {"SyslogRead",
       [] {
         char text[16];
         return Answer(::syscall(SYS_syslog, 3, text, sizeof(text)));
       }},
      {"SyslogConsoleLevel", [] { return Answer(::syscall(SYS_syslog, 8, nullptr, 7)); }},
      {"Mbind", [] { return Call(SYS_mbind); }},
      {"SetMempolicy", [] { return Answer(::syscall(SYS_set_mempolicy, 0, nullptr, 0)); }},
      {"MovePages",
       [] { return Answer(::syscall(SYS_move_pages, 1, 0, nullptr, nullptr, nullptr, 0)); }},
      {"MigratePages", [] { return Call(SYS_migrate_pages); }},
      {"PersonalityReadImpliesExec", [] { return Answer(::personality(READ_IMPLIES_EXEC)); }},
      {"PersonalityNoRandomize", [] { return Answer(::personality(ADDR_NO_RANDOMIZE)); }},
      {"X32Getpid", [] { return Answer(::syscall(0x40000000 | SYS_getpid)); }},
      {"I386Getpid", [] { return I386(20); }},
      {"I386Socketcall", [] { return I386(102); }},
      {"UnknownCalls", UnknownCalls},
      {"CallsNewerThanTheFilter", CallsNewerThanTheFilter},
      {"RaiseCoreLimit", RaiseCoreLimit},
      {"DumpCore", DumpCore},
  };
}

}  // namespace jenkins_agent::escape
