// Places at which the tests kill a process: each numbered step of a task's start, exit, recovery
// and removal, and of an image's pull and removal. FaultPoint() is empty unless FAULT_POINTS is
// defined (sanitized builds only).
//
// A point is armed by naming it in kFaultVariable of the plugin's environment. What the plugin
// starts gets the variable too, so one name stands for one place in one kind of process.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace jenkins_agent {

inline constexpr char kFaultVariable[] = "JENKINS_AGENT_FAULT";

// In the order in which a task passes them.
inline constexpr const char* kFaultPoints[] = {
    // Plugin: StartTask.
    "plugin.start.reserved",
    "plugin.start.directory_made",
    "plugin.start.spawned",
    "plugin.start.answered",
    "plugin.start.handle_written",
    "plugin.start.attached",
    // Supervisor: start.
    "supervisor.start.forked",
    "supervisor.start.sandbox_cloned",
    "supervisor.start.recorded",
    "supervisor.start.cgroup_made",
    "supervisor.start.listening",
    "supervisor.start.sandbox_ready",
    "supervisor.start.launched",
    // Pid 1 and its child: start.
    "init.start.cloned",
    "init.start.root_built",
    "payload.start.in_cgroup",
    "init.start.ready",
    "init.launch.asked",
    "init.launch.forked",
    "payload.launch.before_exec",
    // Supervisor: exit.
    "supervisor.exit.seen",
    "supervisor.exit.sandbox_killed",
    "supervisor.exit.sandbox_gone",
    "supervisor.exit.recorded",
    "supervisor.exit.cgroup_removed",
    "supervisor.exit.told",
    // Pid 1: exit.
    "init.exit.reaped",
    // Plugin: exit, recovery, removal.
    "plugin.exit.heard",
    "plugin.recover.decoded",
    "plugin.recover.attached",
    "plugin.destroy.marked",
    "plugin.destroy.supervisor_gone",
    "plugin.destroy.cgroups_removed",
};

// In the order in which an image passes them.
inline constexpr const char* kImageFaultPoints[] = {
    "image.pull.staged",          "image.pull.unpacked",
    "image.pull.synced",          "image.publish.layer_moved",
    "image.publish.layers_moved", "file.replace.written",
    "image.publish.recorded",     "image.remove.names_gone",
    "image.remove.record_gone",   "image.remove.layers_discarded",
};

// A name of the lists; any other does not compile.
class FaultName {
 public:
  consteval FaultName(const char* name) : name_(name) {  // NOLINT: implicit, reads as a string
    for (const char* known : kFaultPoints) {
      if (std::string_view(known) == name) return;
    }
    for (const char* known : kImageFaultPoints) {
      if (std::string_view(known) == name) return;
    }
    throw "in neither list";
  }
  constexpr const char* name() const { return name_; }

 private:
  const char* name_;
};

#ifdef FAULT_POINTS
void FaultPoint(FaultName point);
// For a program that wipes its environment: called before.
void KeepFaultVariable();
// The variable, if it is set, for the environment of a process that has points too.
std::vector<std::string> FaultEnvironment();
#else
inline void FaultPoint(FaultName) {}
inline void KeepFaultVariable() {}
inline std::vector<std::string> FaultEnvironment() { return {}; }
#endif

}  // namespace jenkins_agent
