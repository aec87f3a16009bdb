#include "driver/task/task_images.h"

#include <fnmatch.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "driver/base/log.h"
#include "driver/base/recoverable.h"
#include "driver/base/status.h"
#include "driver/image/image_name.h"

namespace jenkins_agent {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::minutes kTick{1};
// A restart of a task gives its image back and takes it again.
constexpr std::chrono::seconds kShortestDelay{30};
constexpr int kMaxTakes = 3;  // of an image that is removed between its pull and the lease

struct KeptImage {
  StoredRef ref;
  StoredImage image;
};

std::optional<KeptImage> FindKept(const Store& store, const std::string& name) {
  std::optional<StoredRef> ref = store.FindRef(name);
  if (!ref.has_value()) return std::nullopt;
  std::optional<StoredImage> image = store.FindImage(ref->manifest);
  if (!image.has_value()) return std::nullopt;
  return KeptImage{*std::move(ref), *std::move(image)};
}

std::string Seconds(Clock::duration time) {
  return absl::StrFormat("%.1f s", std::chrono::duration<double>(time).count());
}

std::string PulledStory(const PullResult& result, Clock::duration took) {
  const PullProgress& progress = result.progress;
  if (result.cached) return absl::StrCat("nothing had changed, asked in ", Seconds(took));
  return absl::StrCat("pulled in ", Seconds(took), ": ", (progress.done_bytes + (1 << 19)) >> 20,
                      " MB, ", progress.cached_layers, " of ", progress.layers,
                      " layers already here");
}

std::string ProgressText(const std::string& name, const PullProgress& progress) {
  if (progress.layers == 0) {
    return absl::StrCat("pulling image ", name, ": its manifest and config are not here yet");
  }
  return absl::StrCat("pulling image ", name, ": ", progress.done_bytes >> 20, " of ",
                      progress.bytes >> 20, " MB, ", progress.cached_layers + progress.done_layers,
                      " of ", progress.layers, " layers");
}

std::string StaleStory(const KeptImage& kept, const absl::Status& pull) {
  return absl::StrCat(
      "the kept one of ",
      absl::FormatTime("%Y-%m-%d %H:%M", absl::FromUnixSeconds(kept.ref.resolved_at),
                       absl::UTCTimeZone()),
      " UTC, because it could not be asked for: ", pull.message());
}

absl::Status WhyNotPulled(const std::string& name, const std::string& policy) {
  if (policy == kPullNever) {
    return absl::NotFoundError(absl::StrCat("image ", name,
                                            ": is not kept on this node, and image_pull_policy is "
                                            "\"never\"; fetch it with images pull"));
  }
  // Whoever may start jobs would read every file of the host in such an "image".
  return absl::PermissionDeniedError(
      absl::StrCat("image ", name,
                   ": is not kept, and a job cannot have files of the node read; the operator "
                   "fetches it with images pull or names it in the plugin's images.pre_pull"));
}

const RegistryBlock* FindRegistry(const ImagesBlock& config, const std::string& host) {
  for (const RegistryBlock& registry : config.registries) {
    if (registry.host == host) return &registry;
  }
  return nullptr;
}

void TellOf(const std::vector<StoredImage>& images, Metrics& metrics) {
  metrics.Set(Metric::kImages, "", static_cast<double>(images.size()));
  metrics.Set(Metric::kImageStoreBytes, "", static_cast<double>(StoreBytes(images)));
}

Credentials CredentialsOf(const ImageAuth& auth) {
  return {.user = auth.username, .password = auth.password, .identity_token = ""};
}

}  // namespace

ImageUse DecideImageUse(const std::string& pull_policy, bool kept) {
  if (pull_policy == kPullAlways) return ImageUse::kPull;
  if (kept) return ImageUse::kTakeKept;
  return pull_policy == kPullNever ? ImageUse::kRefuse : ImageUse::kPull;
}

bool MayUseStale(const absl::Status& pull) {
  return absl::IsUnavailable(pull) || absl::IsDeadlineExceeded(pull);
}

bool IsPassing(const absl::Status& pull) {
  return MayUseStale(pull) || absl::IsResourceExhausted(pull) || absl::IsAborted(pull);
}

absl::StatusOr<ImageJob> MakeImageJob(const std::string& name, const ImageAuth& auth,
                                      const ImagesBlock& config, const std::string& store_dir) {
  ASSIGN_OR_RETURN(const ImageName parsed, ParseImageName(name));
  ImageJob job;
  job.store = store_dir;
  job.image = parsed.ToString();
  job.auth_file = config.auth_file;
  if (const RegistryBlock* registry = FindRegistry(config, parsed.reference.host)) {
    job.plain_http = registry->plain_http;
    job.ca_file = registry->ca_file;
    job.mirrors = registry->mirrors;
    if (registry->auth.present) job.credentials = CredentialsOf(registry->auth);
  }
  if (auth.present) job.credentials = CredentialsOf(auth);
  return job;
}

GcPolicy PolicyOf(const ImageGcBlock& gc) {
  const auto seconds = [](const std::string& text) {
    return std::chrono::duration_cast<std::chrono::seconds>(ImageDuration(text));
  };
  GcPolicy policy;
  policy.delay = std::max(seconds(gc.image_delay), kShortestDelay);
  policy.max_age = seconds(gc.image_max_age);
  policy.high_percent = static_cast<int>(gc.high_watermark);
  policy.low_percent = static_cast<int>(gc.low_watermark);
  policy.min_free = gc.min_free << 20;
  policy.max_bytes = gc.max_store_size << 20;
  policy.keep_recent = static_cast<size_t>(gc.keep_recent);
  return policy;
}

bool MatchesPin(const std::string& pattern, const StoredRef& ref) {
  if (pattern == ref.manifest.ToString()) return true;
  if (absl::StrContains(pattern, '*')) {
    return ::fnmatch(pattern.c_str(), ref.name.c_str(), FNM_NOESCAPE) == 0;
  }
  const absl::StatusOr<ImageName> name = ParseImageName(pattern);
  return name.ok() && name->ToString() == ref.name;
}

absl::Status CheckImageNames(const ImagesBlock& config) {
  for (const std::string& name : config.pre_pull) {
    RETURN_IF_ERROR(ParseImageName(name).status(), "plugin config: images.pre_pull");
  }
  for (const std::string& name : config.pins) {
    if (absl::StrContains(name, '*') || Digest::Parse(name).ok()) continue;
    RETURN_IF_ERROR(ParseImageName(name).status(), "plugin config: images.pins");
  }
  return absl::OkStatus();
}

TaskImages::TaskImages(Options options)
    : options_(std::move(options)),
      pulls_(std::make_shared<ImagePulls>(options_.loop, options_.tools, options_.metrics,
                                          options_.progress_interval)) {}

std::function<void()> TaskImages::Later(void (TaskImages::*work)()) {
  return [weak = weak_from_this(), work] {
    if (const auto self = weak.lock()) ((*self).*work)();
  };
}

void TaskImages::Begin() { options_.cleaner->Post(Later(&TaskImages::Tick)); }

absl::StatusOr<PullResult> TaskImages::Fetch(const Wish& wish, const ImageJob& job) {
  ImagePulls::Waiter waiter;
  waiter.id = wish.task_id;
  waiter.until = Clock::now() + ImageDuration(wish.image.pull_timeout);
  waiter.on_progress = [&](const PullProgress& progress) {
    wish.tell(ProgressText(job.image, progress));
  };
  absl::StatusOr<PullResult> pulled = pulls_->Pull(job, waiter);
  if (pulled.ok()) return pulled;
  // The worker's own errors begin with the name.
  if (absl::StartsWith(pulled.status().message(), job.image)) {
    return absl::Status(pulled.status().code(), absl::StrCat("image ", pulled.status().message()));
  }
  const bool late = absl::IsDeadlineExceeded(pulled.status());
  return Annotate(pulled.status(), absl::StrCat("image ", job.image,
                                                late ? absl::StrCat(": image_pull_timeout = \"",
                                                                    wish.image.pull_timeout, "\"")
                                                     : ""));
}

absl::StatusOr<TaskImages::Taken> TaskImages::Take(const Wish& wish) {
  ASSIGN_OR_RETURN(const ImageJob job,
                   MakeImageJob(wish.image.image, wish.image.auth, options_.config, options_.dir),
                   "config: image");
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, Store::Open(options_.dir));
  const std::string& name = job.image;
  absl::Status lost;
  for (int takes = 0; takes < kMaxTakes; ++takes) {
    std::optional<KeptImage> kept = FindKept(*store, name);
    std::string story = "from cache";
    const ImageUse use = DecideImageUse(wish.image.pull_policy, kept.has_value());
    const bool local = ParseImageName(name)->transport != Transport::kRegistry;
    if (use == ImageUse::kRefuse || (use == ImageUse::kPull && local && !kept.has_value())) {
      return WhyNotPulled(name, wish.image.pull_policy);
    }
    if (use == ImageUse::kPull && !local) {
      const Clock::time_point start = Clock::now();
      const absl::StatusOr<PullResult> pulled = Fetch(wish, job);
      if (pulled.ok()) {
        story = PulledStory(*pulled, Clock::now() - start);
        CollectSoon();  // what came may be too much
        // The pull's own answer: the name may mean something else by now.
        const std::optional<StoredImage> image = store->FindImage(pulled->manifest);
        if (!image.has_value()) continue;
        kept = KeptImage{{.name = name, .manifest = pulled->manifest}, *image};
      } else if (kept.has_value() && MayUseStale(pulled.status())) {
        story = StaleStory(*kept, pulled.status());
      } else {
        return IsPassing(pulled.status()) ? MakeRecoverable(pulled.status()) : pulled.status();
      }
    }
    lost = store->TakeLease(
        {.task = wish.task_id, .manifest = kept->image.manifest, .task_dir = wish.task_dir});
    if (lost.ok()) {
      return Taken{name, std::move(kept->image), absl::StrCat("image ", name, ": ", story)};
    }
    if (!absl::IsNotFound(lost)) break;  // else it was removed just now
  }
  return MakeRecoverable(
      Annotate(lost.ok() ? absl::AbortedError("is removed as often as it is pulled") : lost,
               absl::StrCat("image ", name)));
}

void TaskImages::GiveBack(const std::string& task_id) {
  if (!HasLease(options_.dir, task_id)) return;  // each start and each end comes by
  const absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options_.dir);
  const absl::Status dropped = store.ok() ? (*store)->DropLease(task_id) : store.status();
  CollectSoon();
  if (dropped.ok()) return;
  // Its task directory is gone: the next look finds it.
  Log(LogLevel::kWarn, "the image of a task that has gone is still kept for it",
      {{"task_id", task_id}, {"error", std::string(dropped.message())}});
}

void TaskImages::CollectSoon() {
  if (!collect_soon_.exchange(true)) options_.cleaner->Post(Later(&TaskImages::CollectAsAsked));
}

void TaskImages::CollectAsAsked() {
  collect_soon_ = false;
  Collect();
}

void TaskImages::DropDeadLeases() {
  if (::access(options_.dir.c_str(), F_OK) != 0) return;
  const absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options_.dir);
  if (!store.ok()) return;
  for (const Lease& lease : (*store)->Leases()) {
    if (lease.task_dir.empty() || ::access(lease.task_dir.c_str(), F_OK) == 0) continue;
    if (errno == ENOENT) (*store)->DropLease(lease.task).IgnoreError();
  }
}

void TaskImages::Tick() {
  DropDeadLeases();
  Sweep();
  Collect();
  PrePull();
  options_.cleaner->After(kTick, Later(&TaskImages::Tick));
}

std::string ImagesDir(const ImagesBlock& config, const StatePaths& paths) {
  return config.dir.empty() ? paths.Images() : config.dir;
}

std::vector<StoredRef> KeptImages(const ImagesBlock& config, const std::string& store_dir) {
  if (::access(store_dir.c_str(), F_OK) != 0) return {};
  const absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(store_dir);
  if (!store.ok()) return {};
  std::vector<std::string> patterns = config.pins;
  patterns.insert(patterns.end(), config.pre_pull.begin(), config.pre_pull.end());
  for (const std::string& pin : (*store)->Pins()) patterns.push_back(pin);
  std::vector<StoredRef> kept;
  for (StoredRef& ref : (*store)->Refs()) {
    const bool wanted =
        std::any_of(patterns.begin(), patterns.end(),
                    [&ref](const std::string& pattern) { return MatchesPin(pattern, ref); });
    if (wanted && (*store)->FindImage(ref.manifest).has_value()) kept.push_back(std::move(ref));
  }
  return kept;
}

// What pulls and removals left that died. Makes the store, too: it is watched before the first
// image comes (image/store_watch.h).
void TaskImages::Sweep() {
  const absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options_.dir);
  const absl::Status swept = store.ok() ? (*store)->Sweep() : store.status();
  if (swept.ok()) return;
  Log(LogLevel::kWarn, "image store: not all leftovers could be removed",
      {{"error", std::string(swept.message())}});
}

void TaskImages::Collect() {
  if (::access(options_.dir.c_str(), F_OK) != 0) return;
  const absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options_.dir);
  if (!store.ok()) return;  // Sweep has said why
  const std::vector<StoredImage> images = (*store)->Images();
  TellOf(images, *options_.metrics);
  const absl::StatusOr<DiskSpace> disk = (*store)->Space();
  if (!options_.config.gc.enabled || !disk.ok()) return;
  std::set<Digest> kept;
  for (const Lease& lease : (*store)->Leases()) kept.insert(lease.manifest);
  for (const StoredRef& ref : KeptImages(options_.config, options_.dir)) kept.insert(ref.manifest);
  const GcChoice choice =
      ChooseImages(PolicyOf(options_.config.gc), images, kept, *disk, ::time(nullptr));
  for (const Digest& image : choice.images) {
    const absl::StatusOr<int64_t> freed = (*store)->Remove(image);
    options_.metrics->Count(Metric::kImagesRemoved, freed.ok() ? "removed" : "failed");
    Log(freed.ok() ? LogLevel::kInfo : LogLevel::kWarn, "image collected",
        {{"image", image.ToString()},
         {freed.ok() ? "freed_bytes" : "error",
          freed.ok() ? absl::StrCat(*freed) : std::string(freed.status().message())}});
  }
  if (!choice.images.empty()) TellOf((*store)->Images(), *options_.metrics);
}

// One after the other: the starts of tasks come first.
void TaskImages::PrePull() {
  if (options_.config.pre_pull.empty() || pre_pulling_) return;
  const absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options_.dir);
  if (!store.ok()) return;
  for (const std::string& name : options_.config.pre_pull) {
    const absl::StatusOr<ImageJob> job = MakeImageJob(name, {}, options_.config, options_.dir);
    if (!job.ok() || tried_.contains(name) || FindKept(**store, job->image).has_value()) continue;
    pre_pulling_ = true;
    tried_.insert(name);
    const auto next = Later(&TaskImages::AfterPrePull);
    const auto done = [cleaner = options_.cleaner, next,
                       name](const absl::StatusOr<PullResult>& pulled) {
      Log(pulled.ok() ? LogLevel::kInfo : LogLevel::kWarn,
          pulled.ok() ? "image fetched in advance" : "image not fetched in advance",
          {{"image", name}, {"error", std::string(pulled.status().message())}});
      cleaner->Post(next);
    };
    pulls_->PullInBackground(*job, done);
    return;
  }
  tried_.clear();  // what failed is tried again at the next tick
}

void TaskImages::AfterPrePull() {
  pre_pulling_ = false;
  Collect();
  PrePull();
}

}  // namespace jenkins_agent
