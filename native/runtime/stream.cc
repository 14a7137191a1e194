#include "stream.h"

namespace westwind {
namespace {
constexpr size_t kTold = 8;  // ops that an error names which the device told late
}

std::string JobLabel::text() const {
  std::string out = op;
  const char* separator = " [";
  for (const Size& size : sizes) {
    if (size.name == nullptr) break;
    out += separator;
    out += size.name;
    out += '=';
    out += std::to_string(size.value);
    separator = ", ";
  }
  return separator[0] == ',' ? out + "]" : out;
}

Stream::Stream(Backend& backend) : backend_(backend), thread_([this] { run(); }) {}

Stream::~Stream() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Stream::push(Job job) {
  {
    std::lock_guard lock(mutex_);
    if (timing_ && job.work) job.enqueued = since_start();
    job.number = jobs_enqueued_++;
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
}

Status Backend::run_again(const RecordedJobs& jobs, std::shared_ptr<void>&) {
  for (const RecordedJob& job : jobs) {
    const Status status = job.work(*this);
    if (!status.ok) return fail("%s: %s", job.label.c_str(), status.message);
  }
  return {};
}

void Stream::enqueue(const JobLabel& label, std::function<Status(Backend&)> work) {
  if (recording_) recording_->jobs.push_back({label.text(), work});
  push({label, std::move(work), nullptr, nullptr, -1});
}

void Stream::enqueue_always(std::function<void(Backend&)> work) {
  push({{"release"}, nullptr, nullptr, std::move(work), -1});
}

void Stream::enqueue_wait(const JobLabel& label, std::function<Status(Backend&)> work,
                          std::function<void(const std::string&)> done) {
  push({label, std::move(work), std::move(done), nullptr, -1});
}

void Stream::drain() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return jobs_.empty() && !busy_; });
}

// What went wrong, and where as far as it is known.
std::string Stream::told(const JobLabel& label, const Status& status) const {
  if (!status.late) return label.text() + ": " + status.message;
  const std::string seen = std::string(status.message) + ", seen at " + label.text();
  if (unproven_.empty()) return seen + "; the device cannot be used any more in this process.";
  const size_t first = unproven_.size() > kTold ? unproven_.size() - kTold : 0;
  std::string after = first > 0 ? "…" : "";
  for (size_t i = first; i < unproven_.size(); ++i) {
    if (!after.empty()) after += ", ";
    after += unproven_[i].text();
  }
  return seen + " after " + after +
         ". WESTWIND_SYNC=1 shows which; the device cannot be used any more in this process.";
}

std::string Stream::tell(const JobLabel& label, const Status& status) {
  drain();
  return error_.empty() ? told(label, status) : label.text() + ": " + status.message + ", after " + error_;
}

void Stream::start_timing() {
  std::lock_guard lock(mutex_);
  timing_ = true;
  timing_start_ = std::chrono::steady_clock::now();
  timed_.clear();
}

std::vector<TimedJob> Stream::end_timing() {
  std::lock_guard lock(mutex_);
  timing_ = false;
  return std::move(timed_);
}

int64_t Stream::since_start() const {
  const auto elapsed = std::chrono::steady_clock::now() - timing_start_;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count();
}

void Stream::run_job(Job& job) {
  if (job.always) job.always(backend_);
  if (error_.empty() && (job.work || job.done)) {
    Status status = job.work ? job.work(backend_) : Status{};
    if (status.ok && (job.done || job.enqueued >= 0)) {
      status = backend_.wait();
      if (status.ok) unproven_.clear();
    }
    if (!status.ok) {
      error_ = told(job.label, status);
    } else if (!job.done) {
      if (unproven_.size() > 4 * kTold) unproven_.erase(unproven_.begin(), unproven_.end() - kTold - 1);
      unproven_.push_back(job.label);
    }
  }
  if (!job.done) return;
  const std::string error = std::move(error_);
  error_.clear();
  unproven_.clear();
  job.done(error);
}

void Stream::run() {
  backend_.start_stream_thread();
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      busy_ = false;
      if (jobs_.empty()) idle_.notify_all();
      wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
      if (stop_) break;
      job = std::move(jobs_.front());
      jobs_.pop_front();
      busy_ = true;
      running_ = job.number;
    }
    const int64_t begin = job.enqueued < 0 ? 0 : since_start();
    const int64_t enqueued = job.enqueued;
    run_job(job);
    if (enqueued < 0) continue;
    std::lock_guard lock(mutex_);
    if (timing_) timed_.push_back({job.label, enqueued, begin, since_start()});
  }
  for (Job& job : jobs_) {  // nothing is pushed any more: the owner is in the destructor
    if (job.always) job.always(backend_);
    if (job.done) job.done(job.label.text() + ": the device was disposed before this ran");
  }
}

}  // namespace westwind
