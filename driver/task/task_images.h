// The kept images, as tasks use them: found or pulled for a start, held by a lease for as long as
// the task is there, collected by the operator's policy when nobody needs them.
//
// Thread-safe. Owned through a shared_ptr, for callbacks of the cleaner. The store itself is on
// disk, shared with the operator's commands and with other plugins; nothing is kept in memory but
// running pulls.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "driver/base/event_loop.h"
#include "driver/base/paths.h"
#include "driver/config/image_block.h"
#include "driver/image/gc.h"
#include "driver/image/store.h"
#include "driver/task/image_pulls.h"

namespace jenkins_agent {

class TaskImages : public std::enable_shared_from_this<TaskImages> {
 public:
  struct Options {
    ImagesBlock config;
    std::string dir;                          // of the store
    EventLoop* loop = nullptr;                // for pulls
    EventLoop* cleaner = nullptr;             // for what takes seconds
    const JarWorkerProgram* tools = nullptr;  // of the workers, borrowed
    Metrics* metrics = nullptr;               // borrowed
    std::chrono::milliseconds progress_interval = ImagePulls::kProgressInterval;
  };
  explicit TaskImages(Options options);

  // From now on: fetches what is to be pre-pulled, and collects what nobody needs.
  void Begin();

  struct Wish {
    std::string task_id;
    std::string task_dir;  // exists; the lease is good for as long as it does
    const ImageBlock& image;
    std::function<void(std::string)> tell;  // while a pull takes long; on the caller's thread
  };
  struct Taken {
    std::string name;  // as the store calls it
    StoredImage image;
    std::string story;  // "image registry.example/x:1: from cache"
  };
  // Returns once the image is there and leased to the task. Blocks for as long as a pull takes.
  // Errors name the image and the registry; recoverable ones are marked (base/recoverable.h).
  absl::StatusOr<Taken> Take(const Wish& wish);
  // A Take of this task that still waits gives up.
  void GiveUp(const std::string& task_id) { pulls_->GiveUp(task_id); }
  // The task's lease, if it has one; then looks whether something can be collected.
  void GiveBack(const std::string& task_id);

  // Drops the leases whose task directories are gone.
  void DropDeadLeases();
  const std::string& dir() const { return options_.dir; }

 private:
  absl::StatusOr<PullResult> Fetch(const Wish& wish, const ImageJob& job);
  // On the cleaner's thread, if this is still there by then.
  std::function<void()> Later(void (TaskImages::*work)());
  void Tick();
  void CollectAsAsked();
  void Sweep();
  void Collect();
  void CollectSoon();
  void PrePull();
  void AfterPrePull();

  const Options options_;
  const std::shared_ptr<ImagePulls> pulls_;
  std::atomic<bool> collect_soon_ = false;
  // Of the cleaner's thread.
  bool pre_pulling_ = false;
  std::set<std::string> tried_;
};

// What a start does about its image. Pure.
enum class ImageUse { kTakeKept, kPull, kRefuse };
ImageUse DecideImageUse(const std::string& pull_policy, bool kept);

// After a pull under "always" failed: is the kept image as good as it gets? Only when nobody could
// be asked: an answer, such as a refused login, counts. Pure.
bool MayUseStale(const absl::Status& pull);

// Nomad may try again: it was the network, the registry's load, or the disk. Pure.
bool IsPassing(const absl::Status& pull);

// How the worker is to fetch it: the job's login first, then the operator's for that registry.
// InvalidArgument: no name of an image. Pure.
absl::StatusOr<ImageJob> MakeImageJob(const std::string& name, const ImageAuth& auth,
                                      const ImagesBlock& config, const std::string& store_dir);

GcPolicy PolicyOf(const ImageGcBlock& gc);

// `pattern`: a name as in a job, or a digest; '*' stands for any text. Pure.
bool MatchesPin(const std::string& pattern, const StoredRef& ref);

// The pinned and pre-pulled images that are in the store, by name. Reads the store.
std::vector<StoredRef> KeptImages(const ImagesBlock& config, const std::string& store_dir);

// Where images are kept.
std::string ImagesDir(const ImagesBlock& config, const StatePaths& paths);

// Of SetConfig: that names are names. Errors start with the option. Pure.
absl::Status CheckImageNames(const ImagesBlock& config);

}  // namespace jenkins_agent
