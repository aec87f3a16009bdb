#include "driver/image/pull.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/mutex.h"
#include "driver/base/status.h"
#include "driver/image/layer_dir.h"
#include "driver/image/tree_tar.h"
#include "driver/image/unpack.h"

namespace jenkins_agent {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kProgressInterval{200};
constexpr int kMaxAborts = 3;
constexpr int kMaxDigesters = 4;       // threads that look at what was unpacked
constexpr int64_t kUnpackedRatio = 3;  // of a compressed layer, to guess what it will take

struct ImageDocuments {
  Digest digest;  // of the manifest
  Manifest manifest;
  ImageConfig config;
  std::string config_text;
};

absl::StatusOr<std::string> ReadBlob(ImageSource& source, const Descriptor& descriptor) {
  absl::Status status;
  for (int attempt = 0;; ++attempt) {
    absl::StatusOr<std::unique_ptr<ByteSource>> blob = source.Blob(descriptor, attempt);
    if (!blob.ok()) return status.ok() ? blob.status() : status;
    HashingSource checked(**blob, descriptor.size);
    std::string text(descriptor.size, '\0');
    size_t have = 0;
    for (;;) {
      char extra = 0;
      const bool full = have == text.size();
      const absl::StatusOr<size_t> count =
          full ? checked.Read(&extra, 1) : checked.Read(text.data() + have, text.size() - have);
      status = count.status();
      if (!count.ok() || *count == 0) break;
      have += *count;
    }
    if (status.ok() && have == text.size() && checked.Finish() == descriptor.digest) return text;
    if (status.ok()) {
      status = absl::DataLossError(
          absl::StrCat("does not have the digest ", descriptor.digest.ToString()));
    }
  }
}

// From what the name means down to this node's manifest.
absl::StatusOr<ImageDocuments> FetchManifest(ImageSource& source, const Digest& wanted) {
  const Platform host = HostPlatform();
  ImageDocuments documents;
  ASSIGN_OR_RETURN(FetchedDocument document, source.Root());
  for (int depth = 0;; ++depth) {
    documents.digest = Digest::Of(document.text);
    if (depth == 0 && !wanted.empty() && documents.digest != wanted) {
      return absl::DataLossError(
          absl::StrCat("its manifest has the digest ", documents.digest.ToString()));
    }
    ASSIGN_OR_RETURN(auto parsed, ParseManifestDocument(document.text, document.content_type),
                     "its manifest");
    if (const Index* index = std::get_if<Index>(&parsed)) {
      if (depth == kMaxIndexDepth)
        return absl::InvalidArgumentError("its indexes are nested too deeply");
      ASSIGN_OR_RETURN(const Descriptor chosen, SelectPlatform(*index, host));
      ASSIGN_OR_RETURN(document, source.Document(chosen));
      if (Digest::Of(document.text) != chosen.digest) {
        return absl::DataLossError("its manifest does not have the digest that its index says");
      }
      continue;
    }
    documents.manifest = std::get<Manifest>(std::move(parsed));
    return documents;
  }
}

absl::Status FetchConfig(ImageSource& source, ImageDocuments& documents) {
  ASSIGN_OR_RETURN(documents.config_text, ReadBlob(source, documents.manifest.config),
                   "its config");
  ASSIGN_OR_RETURN(documents.config, ParseImageConfig(documents.config_text), "its config");
  return CheckImage(documents.manifest, documents.config, HostPlatform());
}

struct LayerTask {
  Descriptor blob;
  Digest diff_id;
  std::string key;    // final when the layer is here or finished
  bool here = false;  // in the store
  int same_as = -1;   // an earlier layer of this image with the same content
  int64_t bytes = 0;
  Digest tree = {};
  UnpackedLayer unpacked;
};

// Counts what the source sends.
class CountingSource : public ByteSource {
 public:
  CountingSource(ByteSource& from, std::function<void(int64_t)> on_bytes)
      : from_(from), on_bytes_(std::move(on_bytes)) {}
  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    ASSIGN_OR_RETURN(const size_t count, from_.Read(buffer, size));
    on_bytes_(static_cast<int64_t>(count));
    return count;
  }

 private:
  ByteSource& from_;
  const std::function<void(int64_t)> on_bytes_;
};

// Unpacks the missing layers of one image with several threads.
class Unpacker {
 public:
  Unpacker(ImageSource& source, const Staging& staging, std::vector<LayerTask>& layers,
           PullProgress& progress, const std::function<void(const PullProgress&)>& on_progress)
      : source_(source),
        staging_(staging),
        layers_(layers),
        progress_(progress),
        on_progress_(on_progress) {}

  absl::Status Run() {
    const auto missing = std::count_if(layers_.begin(), layers_.end(), IsMissing);
    std::vector<std::thread> threads;
    for (int i = 0; i < std::min<int>(missing, kMaxStreams); ++i) {
      threads.emplace_back([this] { Work(); });
    }
    for (std::thread& thread : threads) thread.join();
    MutexLock lock(mutex_);
    if (on_progress_ && status_.ok()) on_progress_(progress_);
    return status_;
  }

 private:
  static bool IsMissing(const LayerTask& layer) { return !layer.here && layer.same_as < 0; }

  void Work() {
    while (LayerTask* const layer = Next()) {
      const absl::Status status =
          Annotate(Unpack(*layer), absl::StrCat("layer ", layer->blob.digest.Short()));
      MutexLock lock(mutex_);
      if (status.ok()) {
        ++progress_.done_layers;
        bytes_ += layer->unpacked.bytes;
        entries_ += layer->unpacked.entries;
      }
      if (status_.ok()) status_ = status;
      if (status_.ok() && (bytes_ > kMaxImageBytes || entries_ > kMaxImageEntries)) {
        status_ = absl::OutOfRangeError(absl::StrCat("is larger than ", kMaxImageBytes >> 30,
                                                     " GiB or ", kMaxImageEntries, " entries"));
      }
    }
  }

  LayerTask* Next() {
    MutexLock lock(mutex_);
    if (!status_.ok()) return nullptr;
    while (next_ < layers_.size() && !IsMissing(layers_[next_])) ++next_;
    return next_ < layers_.size() ? &layers_[next_++] : nullptr;
  }

  absl::Status Unpack(LayerTask& layer) {
    absl::Status status;
    for (int attempt = 0;; ++attempt) {
      const absl::StatusOr<std::unique_ptr<ByteSource>> blob = source_.Blob(layer.blob, attempt);
      if (!blob.ok()) return status.ok() ? blob.status() : status;
      int64_t counted = 0;
      CountingSource counting(**blob, [this, &counted](int64_t bytes) {
        counted += bytes;
        Count(bytes);
      });
      status = UnpackFrom(counting, layer);
      // A full disk is no fault of the place that the bytes came from.
      if (status.ok() || absl::IsResourceExhausted(status)) return status;
      Count(-counted);
      RETURN_IF_ERROR(RemoveTree(absl::StrCat(staging_.path(), "/", layer.key)));
    }
  }

  absl::Status UnpackFrom(ByteSource& blob, LayerTask& layer) {
    ASSIGN_OR_RETURN(const Fd dir, staging_.MakeLayer(layer.key));
    ASSIGN_OR_RETURN(layer.unpacked, UnpackLayer(blob, layer.blob, layer.diff_id, dir.get()));
    layer.bytes = layer.unpacked.bytes;
    return absl::OkStatus();
  }

  void Count(int64_t bytes) {
    MutexLock lock(mutex_);
    progress_.done_bytes += bytes;
    const Clock::time_point now = Clock::now();
    if (!on_progress_ || now < next_report_) return;
    next_report_ = now + kProgressInterval;
    on_progress_(progress_);
  }

  ImageSource& source_;
  const Staging& staging_;
  std::vector<LayerTask>& layers_;  // each worked on by one thread
  Mutex mutex_;
  PullProgress& progress_ ABSL_GUARDED_BY(mutex_);
  const std::function<void(const PullProgress&)>& on_progress_;
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t entries_ ABSL_GUARDED_BY(mutex_) = 0;
  Clock::time_point next_report_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

// Which layers are here, alone or as part of this chain; which come twice.
std::vector<LayerTask> PlanLayers(const Store& store, const ImageDocuments& documents) {
  std::vector<LayerTask> layers;
  std::vector<Digest> chain;
  for (size_t i = 0; i < documents.manifest.layers.size(); ++i) {
    LayerTask layer = {.blob = documents.manifest.layers[i],
                       .diff_id = documents.config.diff_ids[i],
                       .key = "",
                       .unpacked = {}};
    chain.push_back(layer.diff_id);
    layer.key = LayerKey(layer.diff_id);
    const std::string chained = ChainKey(ChainId(chain));
    if (!store.HasLayer(layer.key) && store.HasLayer(chained)) layer.key = chained;
    layer.here = store.HasLayer(layer.key);
    for (size_t j = 0; j < i && !layer.here && layer.same_as < 0; ++j) {
      if (layers[j].diff_id == layer.diff_id) layer.same_as = static_cast<int>(j);
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

// Directories that a layer does not describe get the attributes that they have below; the layer is
// then this chain's alone.
absl::Status CompleteLayers(const Store& store, const Staging& staging,
                            std::vector<LayerTask>& layers) {
  std::vector<Digest> chain;
  std::vector<Fd> opened;
  std::vector<int> lowers;  // topmost first
  for (LayerTask& layer : layers) {
    chain.push_back(layer.diff_id);
    if (layer.same_as >= 0) {
      layer.key = layers[layer.same_as].key;
      layer.bytes = layers[layer.same_as].bytes;
      continue;
    }
    absl::StatusOr<Fd> dir = layer.here ? store.OpenLayer(layer.key)
                                        : OpenAt(staging.fd(), layer.key, O_RDONLY | O_DIRECTORY);
    if (absl::IsNotFound(dir.status())) {
      return absl::AbortedError(absl::StrCat("layer ", layer.key, " was removed during the pull"));
    }
    RETURN_IF_ERROR(dir.status());
    if (!layer.unpacked.invented_dirs.empty() && !lowers.empty()) {
      RETURN_IF_ERROR(TakeAttributes(dir->get(), layer.unpacked.invented_dirs, lowers));
      const std::string key = ChainKey(ChainId(chain));
      if (::renameat(staging.fd(), layer.key.c_str(), staging.fd(), key.c_str()) != 0) {
        return ErrnoStatus("rename a layer");
      }
      layer.key = key;
    }
    lowers.insert(lowers.begin(), dir->get());
    opened.push_back(*std::move(dir));
  }
  return absl::OkStatus();
}

// Notes what each new layer's directory holds, for VerifyLayer, while the disk is busy with it.
absl::Status SyncAndDigest(const Staging& staging, std::vector<LayerTask>& layers, bool sync) {
  absl::Status synced;
  std::vector<std::thread> threads;
  if (sync) threads.emplace_back([&] { synced = staging.Sync(); });
  std::atomic<size_t> next = 0;
  std::vector<absl::Status> digested(layers.size());
  const auto work = [&] {
    for (size_t i; (i = next++) < layers.size();) {
      if (layers[i].here || layers[i].same_as >= 0) continue;
      absl::StatusOr<Fd> dir = OpenAt(staging.fd(), layers[i].key, O_RDONLY | O_DIRECTORY);
      absl::StatusOr<Digest> tree =
          dir.ok() ? DigestOfTree(*std::move(dir), layers[i].unpacked.sums) : dir.status();
      digested[i] = Annotate(tree.status(), absl::StrCat("layer ", layers[i].blob.digest.Short()));
      if (tree.ok()) layers[i].tree = *std::move(tree);
    }
  };
  for (int i = 1; i < kMaxDigesters; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : digested) RETURN_IF_ERROR(status);
  // A layer that comes twice is one directory.
  for (LayerTask& layer : layers) {
    if (layer.same_as >= 0) layer.tree = layers[layer.same_as].tree;
  }
  return synced;
}

// The bytes of layers that are here are known to the images that have them.
void TakeKnownSizes(const Store& store, std::vector<LayerTask>& layers) {
  for (const StoredImage& image : store.Images()) {
    for (const StoredLayer& known : image.layers) {
      for (LayerTask& layer : layers) {
        if (layer.here && layer.key == known.key) {
          layer.bytes = known.bytes;
          layer.tree = known.tree;
        }
      }
    }
  }
}

absl::Status CheckSpace(const Store& store, int64_t bytes) {
  struct statvfs info = {};
  if (::statvfs(store.dir().c_str(), &info) != 0) return ErrnoStatus("statvfs");
  const auto free = static_cast<int64_t>(info.f_bavail * info.f_frsize);
  if (free >= bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "needs about ", bytes >> 20, " MiB in ", store.dir(), ", where ", free >> 20,
      " MiB are free: remove images (images gc, images rm) or enlarge the file system"));
}

absl::StatusOr<PullResult> PullOnce(const Store& store, ImageSource& source,
                                    const PullRequest& request) {
  ASSIGN_OR_RETURN(ImageDocuments documents, FetchManifest(source, request.digest));
  PullResult result = {.manifest = documents.digest, .progress = {}};
  result.progress.layers = static_cast<int>(documents.manifest.layers.size());
  const int64_t now = ::time(nullptr);
  const StoredRef ref = {.name = request.name, .manifest = documents.digest, .resolved_at = now};
  if (store.SetRef(ref).ok()) {
    result.progress.cached_layers = result.progress.layers;
    result.cached = true;  // it was checked when it came, and who sends its manifest lets it be had
    return result;
  }
  RETURN_IF_ERROR(FetchConfig(source, documents));
  ASSIGN_OR_RETURN(const Staging staging, store.Stage());
  FaultPoint("image.pull.staged");
  std::vector<LayerTask> layers = PlanLayers(store, documents);
  for (const LayerTask& layer : layers) {
    if (layer.here) ++result.progress.cached_layers;
    if (!layer.here && layer.same_as < 0) result.progress.bytes += layer.blob.size;
  }
  RETURN_IF_ERROR(CheckSpace(store, result.progress.bytes * kUnpackedRatio));
  if (request.on_progress) request.on_progress(result.progress);
  RETURN_IF_ERROR(Unpacker(source, staging, layers, result.progress, request.on_progress).Run());
  FaultPoint("image.pull.unpacked");
  RETURN_IF_ERROR(CompleteLayers(store, staging, layers));
  RETURN_IF_ERROR(SyncAndDigest(staging, layers, request.sync));
  FaultPoint("image.pull.synced");
  TakeKnownSizes(store, layers);
  StoredImage image = {.manifest = documents.digest,
                       .config = documents.config_text,
                       .layers = {},
                       .pulled_at = now};
  for (const LayerTask& layer : layers)
    image.layers.push_back({.key = layer.key, .bytes = layer.bytes, .tree = layer.tree});
  RETURN_IF_ERROR(store.Publish(staging, image, ref));
  return result;
}

}  // namespace

absl::StatusOr<PullResult> Pull(const Store& store, ImageSource& source,
                                const PullRequest& request) {
  for (int aborts = 0;; ++aborts) {
    absl::StatusOr<PullResult> result = PullOnce(store, source, request);
    if (!absl::IsAborted(result.status()) || aborts == kMaxAborts) return result;
  }
}

}  // namespace jenkins_agent
