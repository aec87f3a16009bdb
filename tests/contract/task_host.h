// A Nomad client with its tasks, for tests in which plugins and supervisors die: one state
// directory, one plugin at a time, the calls of a task's life, and what must not be left at the
// end.
//
// The RPCs may be called from any thread. Launch, Crash and Quit are for one thread.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "driver/base/mutex.h"
#include "tests/contract/plugin_host.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;

class TaskHost {
 public:
  static constexpr std::chrono::seconds kCallLimit{60};

  explicit TaskHost(std::string program);
  // Ends whatever a failed test left running below its directory.
  ~TaskHost();

  struct Settings {
    std::map<std::string, std::string> env = {};  // added to the plugin's environment
    std::string log_collection = "nomad";
    std::string metrics_listen = {};                   // empty: no metrics
    nlohmann::json config = nlohmann::json::object();  // further options of the plugin block
  };
  // Starts a plugin, configures it and says Init, as Nomad does.
  absl::Status Launch(const Settings& settings);
  absl::Status Launch() { return Launch(Settings()); }
  // SIGKILL, and the plugin is gone.
  absl::Status Crash();
  // The driver is told of the agent's end (since Nomad 2.0.4); then go-plugin's orderly end.
  absl::Status Quit();
  // For a plugin that dies by itself.
  absl::Status AwaitPluginEnd();
  PluginHost& plugin() { return *Host(); }

  // A task that runs a line of shell, or a command.
  nomad::TaskConfig Config(const std::string& id, const std::string& script) const;
  nomad::TaskConfig Config(const std::string& id, const std::string& command,
                           const std::vector<std::string>& args) const;
  // The directories that Nomad makes for a task of this name.
  absl::Status MakeTaskDirs(const std::string& name) const;
  grpc::Status Start(const nomad::TaskConfig& config, nomad::TaskHandle* handle);
  grpc::Status Recover(const nomad::TaskHandle& handle);
  grpc::Status Wait(const std::string& id, nomad::WaitTaskResponse* response);
  grpc::Status Stop(const std::string& id, const std::string& signal, int timeout_ms);
  grpc::Status Signal(const std::string& id, const std::string& signal);
  grpc::Status Destroy(const std::string& id, bool force = true);
  grpc::Status Inspect(const std::string& id, nomad::InspectTaskResponse* response);
  grpc::Status Exec(const std::string& id, const std::vector<std::string>& command,
                    std::chrono::milliseconds timeout, nomad::ExecTaskResponse* response);

  const std::string& dir() const { return dir_.path(); }
  std::string StateDir() const { return dir_.path() + "/state"; }
  std::string TaskDir(const std::string& id) const;
  int TasksOnDisk() const;
  std::string Logs() const { return dir_.path() + "/allocs/alloc/logs"; }
  std::string Local(const std::string& file) const {
    return dir_.path() + "/allocs/agent/local/" + file;
  }

  // Pids of our own programs and of what runs in our tasks' cgroups, that belong to this host.
  std::vector<int> Processes() const;
  std::vector<int> Supervisors() const;
  std::vector<int> Payloads() const;
  // What is there that should not be: processes, mounts, cgroups, files; empty: nothing. Waits for
  // what is on its way out.
  std::string Leftovers() const;

 private:
  std::shared_ptr<PluginHost> Host() const;
  bool Ours(int pid) const;
  std::vector<std::string> Cgroups() const;
  std::string LookForLeftovers() const;

  const std::string program_;
  const std::string alloc_id_;
  const TempDir dir_;
  mutable Mutex mutex_;
  std::shared_ptr<PluginHost> host_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace jenkins_agent
