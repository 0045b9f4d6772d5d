// A few threads that share out the chunks of one product at a time.
//
// The caller never waits for a thread that has not begun: it works through the chunks itself, and threads that wake in
// time take some of them from it. On an idle machine that is a parallel loop; where another process holds the second
// core, the caller finishes alone instead of standing at a barrier until the scheduler comes round. A child after
// fork(), which has no such threads, works the same way. Which thread computes a chunk never changes its result.
#pragma once

#include <atomic>
#include <climits>
#include <cstdint>
#include <mutex>
#include <thread>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <condition_variable>
#endif

class Pool {
  public:
    // Calls body(chunk) once for every chunk in 0 .. chunks - 1, on up to `threads` threads; returns when all are done.
    template <typename Body>
    static void run(int threads, int64_t chunks, const Body& body) {
        if (threads > 1 && chunks > 1) {
            Pool& pool = instance();
            if (pool.busy_.try_lock()) {  // a second caller at the same time works alone
                std::lock_guard<std::mutex> held(pool.busy_, std::adopt_lock);
                pool.share(threads, chunks, [](const void* context, int64_t chunk) { (*(const Body*)context)(chunk); },
                           &body);
                return;
            }
        }
        for (int64_t chunk = 0; chunk < chunks; chunk++) body(chunk);
    }

  private:
    using Call = void (*)(const void*, int64_t);
    static constexpr int SPINS = 4000;  // pauses before a thread sleeps: about 50 microseconds, a few operators of a decode step
    static constexpr uint64_t NEXT = (uint64_t)1 << 32;  // `state_`: generation in the high half, next chunk in the low
    static bool open_now(uint64_t state) { return state / NEXT % 2; }  // odd generations are jobs, even ones the time between

    std::mutex busy_;
    int started_ = 0;
    std::atomic<uint64_t> state_{0};
    std::atomic<uint32_t> alarm_{0};  // counts runs; what sleepers wait on
    std::atomic<int> asleep_{0};
    std::atomic<int64_t> chunks_{0}, done_{0};
    std::atomic<int> helpers_{0};
    std::atomic<Call> call_{nullptr};
    std::atomic<const void*> context_{nullptr};

    static Pool& instance() {
        static Pool* pool = new Pool;  // never destroyed: its threads may outlive every static
        return *pool;
    }

    void share(int threads, int64_t chunks, Call call, const void* context) {
        for (; started_ < threads - 1; started_++) std::thread([this, id = started_] { serve(id); }).detach();
        std::atomic_thread_fence(std::memory_order_release);  // the last job is seen closed before this one is written
        chunks_.store(chunks, std::memory_order_relaxed);
        done_.store(0, std::memory_order_relaxed);
        helpers_.store(threads - 1, std::memory_order_relaxed);
        call_.store(call, std::memory_order_relaxed);
        context_.store(context, std::memory_order_relaxed);
        // Whoever reads this generation reads the job above it; a claim under an older one fails, between jobs none is made.
        const uint64_t open = ((state_.load(std::memory_order_relaxed) / NEXT) + 1) * NEXT;
        state_.store(open, std::memory_order_seq_cst);
        alarm_.fetch_add(1, std::memory_order_seq_cst);
        if (asleep_.load(std::memory_order_seq_cst) > 0) wake();
        work(open);
        while (done_.load(std::memory_order_acquire) < chunks) pause();
        state_.store(open + NEXT, std::memory_order_seq_cst);  // closes the job: its context dies with this call
    }

    // Takes chunks of the generation `open` until none is left.
    void work(uint64_t open) {
        const int64_t chunks = chunks_.load(std::memory_order_relaxed);
        const Call call = call_.load(std::memory_order_relaxed);
        const void* context = context_.load(std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_acquire);
        uint64_t seen = state_.load(std::memory_order_acquire);
        while (seen / NEXT == open / NEXT && (int64_t)(seen % NEXT) < chunks) {
            if (!state_.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) continue;
            call(context, (int64_t)(seen % NEXT));
            done_.fetch_add(1, std::memory_order_release);
            seen = state_.load(std::memory_order_acquire);
        }
    }

    void serve(int id) {
        uint32_t heard = 0;
        for (;;) {
            uint32_t now = alarm_.load(std::memory_order_acquire);
            for (int i = 0; now == heard && i < SPINS; i++) {
                pause();
                now = alarm_.load(std::memory_order_acquire);
            }
            if (now == heard) {
                asleep_.fetch_add(1, std::memory_order_seq_cst);
                sleep(heard);
                asleep_.fetch_sub(1, std::memory_order_seq_cst);
                continue;
            }
            heard = now;
            const uint64_t open = state_.load(std::memory_order_acquire) / NEXT * NEXT;
            if (open_now(open) && id < helpers_.load(std::memory_order_relaxed)) work(open);
        }
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

#if defined(__linux__)
    void sleep(uint32_t heard) { syscall(SYS_futex, (uint32_t*)&alarm_, FUTEX_WAIT_PRIVATE, heard, nullptr, nullptr, 0); }
    void wake() { syscall(SYS_futex, (uint32_t*)&alarm_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }
#else
    std::mutex bed_;
    std::condition_variable bell_;
    void sleep(uint32_t heard) {
        std::unique_lock<std::mutex> held(bed_);
        bell_.wait(held, [&] { return alarm_.load() != heard; });
    }
    void wake() {
        { std::lock_guard<std::mutex> held(bed_); }
        bell_.notify_all();
    }
#endif
};
